"""s9: a Hydra-configured, sweepable experiment repository for small image classifiers."""

from s9.process import share_cores

__version__ = "0.1.0"

share_cores()  # here, since libgomp reads how to wait when torch loads it
