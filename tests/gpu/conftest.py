"""What a run on a real card is recorded with."""

from __future__ import annotations

import shutil
import subprocess

import torch


def pytest_report_header() -> list[str]:
    """Driver, card and versions, where there is a card."""
    if not torch.cuda.is_available():
        return []
    driver = "unknown"
    if tool := shutil.which("nvidia-smi"):
        asked = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
        driver = subprocess.run(asked, capture_output=True, text=True).stdout.split("\n")[0] or driver
    cards = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return [f"driver {driver}, {', '.join(cards)}, torch {torch.__version__}, CUDA {torch.version.cuda}"]
