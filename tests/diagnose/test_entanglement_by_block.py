"""Entanglement: the localizer's evidence, of both models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from steering import Rows, context, load

from expunge.data.splits import Splits
from expunge.diagnose.entanglement import Entanglement
from expunge.localize.mutual_information import MutualInformation


def test_an_untouched_model_is_as_entangled_as_the_localizer_says(tiny_folder: Path, examples: Rows) -> None:
    """Pushed by nothing, the unlearned model's values are the original's, and both are those of `expunge locate`."""
    rows = {**examples, "forget": (*examples["forget"], *examples["neighbour"])}
    found = Entanglement(Entanglement.Config()).measure(context(tiny_folder, rows, torch.zeros(96), tensors={}))
    localizer = MutualInformation(MutualInformation.Config(components=1, gradient_cosine=False))
    curves = localizer.select(load(tiny_folder), Splits(rows["forget"], rows["retain"]), 0).curves
    columns = list(zip(*found.tables[0].rows, strict=True))[1:]
    assert len(columns) == 2 * len(curves)
    for place, curve in enumerate(curves):
        assert columns[place] == pytest.approx(curve.values)
        assert columns[len(curves) + place] == pytest.approx(curve.values)
