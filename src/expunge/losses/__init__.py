"""Pure functions of log-probabilities and logits that fillers share."""
