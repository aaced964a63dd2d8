"""Evidence of what a model knows: one pass over the data, then metrics as pure functions of it."""
