"""The images of a run: where they come from, how they are augmented, how they become batches."""
