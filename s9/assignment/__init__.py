"""The rules of the assignment that s9 began with, for a network and for an augmentation set."""
