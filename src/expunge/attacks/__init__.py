"""Attacks on an unlearned model or through its prompts, one per file, and the engine that runs them."""
