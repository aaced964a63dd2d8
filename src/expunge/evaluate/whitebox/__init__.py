"""White-box measures of forgetting, one per file."""
