"""Cosines with the direction, and what they would be without any steering."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from steering import LAYER, Rows, context, direction

from expunge.diagnose.alignment import Alignment, unrelated
from expunge.losses.activations import cosine


def test_the_null_is_the_law_of_a_shuffled_direction() -> None:
    """4000 random orders of the entries: mean and deviation of the cosine with one state that leans to all-ones."""
    generator = torch.Generator().manual_seed(0)
    state = torch.randn(64, generator=generator) + 0.7
    u = torch.rand(64, generator=generator)
    orders = torch.stack([u[torch.randperm(64, generator=generator)] for _ in range(4000)])
    found = cosine(orders, state)
    null = unrelated(state[None], u)
    assert null.centre == pytest.approx(float(found.mean()), abs=4 * null.deviation / math.sqrt(4000))
    assert null.deviation == pytest.approx(float(found.std()), rel=0.05)


def test_for_a_uniform_draw_it_is_the_usual_figure() -> None:
    """0.866 m and 0.5 sqrt((1 - m^2) / D) of arXiv:2408.06223's draw, here with m = 0.6 and D = 4096."""
    u = torch.rand(4096, generator=torch.Generator().manual_seed(1))
    ones = torch.ones(4096) / 64
    across = torch.randn(4096, generator=torch.Generator().manual_seed(2))
    across -= (across @ ones) * ones
    null = unrelated((0.6 * ones + 0.8 * across / across.norm())[None], u)
    assert null.centre == pytest.approx(0.866 * 0.6, abs=0.01)
    assert null.deviation == pytest.approx(0.5 * 0.8 / 64, rel=0.03)


def test_a_steered_model_lies_on_the_direction_and_the_original_does_not(tiny_folder: Path, examples: Rows) -> None:
    found = Alignment(Alignment.Config()).measure(context(tiny_folder, examples, 1000 * direction()))
    columns, rows = found.tables[0].columns, found.tables[0].rows
    median, distance = columns.index("median"), columns.index("KS D")
    cosines = {(row[0], row[1]): row for row in rows}
    for split in ("forget", "retain"):
        assert float(cosines[split, "unlearned"][median]) > 0.99
        assert float(cosines[split, "original"][median]) < 0.9
        assert cosines[split, "unlearned"][distance] == 1
        assert cosines[split, "original"][distance] is None
    assert f"block {LAYER}" in found.sentence
    assert all(sum(one.y) == pytest.approx(1) for chart in found.charts for one in chart.series)


def test_rows_of_a_topic_are_compared_with_its_own_direction(tiny_folder: Path, examples: Rows) -> None:
    forget = tuple(replace(row, topic="bio" if place < 3 else "cyber") for place, row in enumerate(examples["forget"]))
    tensors = {"direction.bio": direction(), "direction.cyber": direction().flip(0)}
    given = context(tiny_folder, {**examples, "forget": forget}, direction(), tensors=tensors)
    found = Alignment(Alignment.Config()).measure(given)
    counts = {(row[0], row[1]): row[2] for row in found.tables[0].rows}
    assert counts["forget, bio", "original"] == 3
    assert counts["forget, cyber", "original"] == len(forget) - 3
    assert counts["retain, bio", "unlearned"] == len(examples["retain"])


def test_a_plain_model_is_compared_with_a_drawn_direction(tiny_folder: Path, examples: Rows) -> None:
    found = Alignment(Alignment.Config()).measure(context(tiny_folder, examples))
    assert "which was drawn and not steered to" in found.sentence
    assert {row[1] for row in found.tables[0].rows} == {"original"}
