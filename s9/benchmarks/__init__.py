"""Speed: what s9 does, timed beside what people would otherwise run."""
