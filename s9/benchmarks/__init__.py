"""Speed: s9 timed against what people would otherwise run."""
