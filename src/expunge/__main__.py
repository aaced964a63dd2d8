"""`python -m expunge`, and `accelerate launch -m expunge eval ...` with several processes."""

import sys

if not getattr(sys.flags, "safe_path", False):
    del sys.path[0]  # the working folder, which `python -m` puts first: a file in it must not stand in for a module

from expunge.cli.main import main

main()
