"""people: widely known facts that SmolLM2-135M-Instruct holds before anything is forgotten."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

from expunge.data.base import DataSource

_FILE = Path(__file__).with_name("people.jsonl")


class People(DataSource):
    """Facts about a few people to forget, others to keep, neighbours and general knowledge to measure.

    Every question was kept only because the greedy answer of SmolLM2-135M-Instruct, under its chat template, holds the
    keyword. No subject is in two splits. The `dev_` splits are for choosing settings; report on the others.
    """

    splits: ClassVar = ("forget", "retain", "neighbour", "general", "dev_forget", "dev_neighbour", "dev_general")

    def rows(self, split: str) -> list[dict[str, object]]:
        """Rows of one split, in file order."""
        rows = [json.loads(line) for line in _FILE.read_text(encoding="utf-8").splitlines()]
        return [row for row in rows if row["split"] == split]
