"""What an adversary does to an unlearned model or to its prompts, one attack a file."""
