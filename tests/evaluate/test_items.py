"""items.parquet holds every row's numbers, and its text only where that was allowed."""

from __future__ import annotations

from pathlib import Path

import pytest
from pyarrow import parquet

from expunge.data.example import Example
from expunge.evaluate.base import Item
from expunge.evaluate.items import write_items

ITEM = Item(Example("a", "Secret question?", "Secret answer."), greedy="Secret reply.", samples=("Secret sample.",))
VALUES = {"forget": {"probability": [0.5, "no reason"]}}
STAGES = {"before": ({"forget": [ITEM, ITEM]}, VALUES, {"forget": ["leak", None]})}


@pytest.mark.parametrize("show", [True, False])
def test_text_is_kept_only_where_allowed(tmp_path: Path, show: bool) -> None:
    path = tmp_path / "items.parquet"
    write_items(path, STAGES, show)
    first, second = parquet.read_table(path).to_pylist()
    assert (first["stage"], first["split"], first["id"], first["probability"]) == ("before", "forget", "a", 0.5)
    assert second["probability"] is None
    assert (first["kind"], second["kind"]) == ("leak", None)
    texts = {name: first[name] for name in ("question", "answer", "generated", "samples")}
    shown = {
        "question": "Secret question?",
        "answer": "Secret answer.",
        "generated": "Secret reply.",
        "samples": ["Secret sample."],
    }
    assert texts == (shown if show else dict.fromkeys(shown))
    assert (b"Secret" in path.read_bytes()) is show
    assert [found.name for found in tmp_path.iterdir()] == ["items.parquet"]
