"""Records that cannot be read are told in one line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from expunge.core.errors import UserError
from expunge.core.records import (
    GuardOutcome,
    ModelPrint,
    Provenance,
    Record,
    Score,
    SelectionPrint,
    read_record,
)


@pytest.fixture
def record() -> Record:
    """The smallest record."""
    return Record(
        recipe="npo",
        config={"seed": 0},
        provenance=Provenance(
            command="", created="", expunge="", python="", platform="", device="cpu", precision="float32"
        ),
        model=ModelPrint(source="m", sha256="0", architecture="A", num_parameters=1, num_layers=1, template="chat"),
        data={},
        selection=SelectionPrint(localizer="everything", num_parameters=1, names=["w"]),
        before={"forget": {"probability": Score(value=1.0, low=1.0, high=1.0, n=1)}},
        after={"forget": {"probability": Score(value=None, reason="none")}},
        guard=GuardOutcome(utility_floor=None),
        seconds={"total": 1.0},
        peak_memory_mb=1.0,
        num_steps=1,
        num_epochs=1.0,
    )


def test_record_survives_the_disk(record: Record, tmp_path: Path) -> None:
    (tmp_path / "record.json").write_text(record.model_dump_json(), encoding="utf-8")
    assert read_record(tmp_path) == record


def test_a_record_from_before_the_squeezing_diagnostic_is_still_read(record: Record, tmp_path: Path) -> None:
    old = json.loads(record.model_dump_json())
    del old["squeeze"]
    (tmp_path / "record.json").write_text(json.dumps(old), encoding="utf-8")
    assert read_record(tmp_path) == record
    assert read_record(tmp_path).squeeze is None


def test_records_from_before_answers_had_kinds_still_load(record: Record, tmp_path: Path) -> None:
    old = {name: value for name, value in json.loads(record.model_dump_json()).items() if name != "kinds"}
    (tmp_path / "record.json").write_text(json.dumps(old), encoding="utf-8")
    assert read_record(tmp_path).kinds == {}


def test_damaged_records(record: Record, tmp_path: Path) -> None:
    text = record.model_dump_json()
    newer = json.dumps({**json.loads(text), "schema_version": 2})
    unknown = json.dumps({**json.loads(text), "forgotten": True})
    for content, part in (
        (text[:-20], "record.json"),
        ("", "record.json"),
        (newer, "schema_version"),
        (unknown, "forgotten"),
        (text.replace('"num_steps":1', '"num_steps":"many"'), "num_steps"),
        (text.replace('"kinds":{}', '"kinds":{"after":{"forget":{"lie":1}}}'), "kinds"),
    ):
        (tmp_path / "record.json").write_text(content, encoding="utf-8")
        with pytest.raises(UserError, match=part) as caught:
            read_record(tmp_path)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="finished run"):
        read_record(tmp_path / "nowhere")


def test_records_are_frozen_and_closed(record: Record) -> None:
    with pytest.raises(ValidationError):
        record.recipe = "other"
    with pytest.raises(ValidationError):
        Score(value=1.0, valu=2.0)  # type: ignore[call-arg]
