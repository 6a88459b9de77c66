"""Training: pretraining on several sets, transfer, and the gates of the exits."""
