"""How deep forgetting goes: what is left inside a model, block by block, against a model that never knew."""
