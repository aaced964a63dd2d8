"""One module per command: what `expunge run`, `eval`, `attack` and the others do, from checked input to files."""
