"""Diagnostics: what the hidden states of a model, or of a run's two models, show; one per file."""
