"""Random numbers that depend on a name only, alike in every process and on every machine."""

from __future__ import annotations

import torch

from expunge.core.provenance import sha256_text


def named_generator(name: str) -> torch.Generator:
    """A generator on the CPU whose numbers depend on a name alone."""
    return torch.Generator().manual_seed(int(sha256_text(name)[:15], 16))
