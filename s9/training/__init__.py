"""Training: optimizers and schedules, the loop, checkpoints and the weights on disk."""
