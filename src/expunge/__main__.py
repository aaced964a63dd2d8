"""`python -m expunge`, and `accelerate launch -m expunge eval ...` with several processes."""

from expunge.cli.main import main

main()
