"""What every room stands on: errors, files, signals, and the machine under a run."""
