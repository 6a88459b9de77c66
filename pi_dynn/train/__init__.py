"""Training in three stages: transfer, distillation, exits."""
