"""What concerns many runs: the summary of a sweep."""
