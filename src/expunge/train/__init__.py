"""Training: pairing, the trainer, the guard, teaching."""
