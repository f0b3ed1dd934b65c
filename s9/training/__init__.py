"""Learning: optimizers and schedules, the loop, the weights on disk."""
