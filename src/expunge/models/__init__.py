"""Models in and out: loading, saving, forward passes, generation."""
