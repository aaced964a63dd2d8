"""Rows in: examples, splits, encoding, batches."""
