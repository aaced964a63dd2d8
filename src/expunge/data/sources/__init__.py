"""Data sets and formats, one per file."""
