"""Bad inputs of a fixed seed over every command, option and file type; `python tests/fuzz` tries more of them."""

import subprocess
import sys
from pathlib import Path


def test_every_bad_input_is_refused_in_one_line_and_nothing_is_written() -> None:
    call = [sys.executable, str(Path(__file__).parent), "--cases", "150", "--seed", "1"]
    done = subprocess.run(call, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "150 tried     0 not refused" in done.stdout
