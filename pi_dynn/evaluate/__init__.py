"""Accuracy on labelled images, and thresholds from the outputs of all exits."""
