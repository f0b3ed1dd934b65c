"""Images in: where they come from, how they are augmented, how they become batches."""
