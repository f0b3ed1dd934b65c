"""What a run leaves: files first, W&B as their mirror, figures drawn from the files alone."""
