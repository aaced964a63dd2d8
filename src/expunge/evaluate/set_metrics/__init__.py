"""Scores of many rows at once, one file each."""
