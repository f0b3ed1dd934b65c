"""What belongs to many runs: the summary that a sweep leaves."""
