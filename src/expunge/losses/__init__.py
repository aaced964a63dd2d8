"""Pure functions of log-probabilities and logits that fillers share, and the refusals that they draw."""
