"""s9: a Hydra-configured, sweepable experiment repository for small image classifiers."""

__version__ = "0.1.0"
