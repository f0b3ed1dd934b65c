"""What all other packages of s9 use: errors, files, signals, and the machine under a run."""
