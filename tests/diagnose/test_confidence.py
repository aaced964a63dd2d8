"""Confidence of generated tokens: by hand, and against transformers' own generation."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from steering import Rows, context

from expunge.diagnose.confidence import QUANTITIES, Confidence, quantities
from expunge.models.base import LanguageModel


def test_two_tokens_by_hand() -> None:
    """Logits 0 and ln 3: probability 3/4, entropy ln 4 - 3/4 ln 3, energy ln 4; a shift moves but two."""
    logits = torch.tensor([[0.0, math.log(3)]], dtype=torch.float64)
    wanted = [math.log(3), 0.75, math.log(4) - 0.75 * math.log(3), math.log(4)]
    assert quantities(logits)[0].tolist() == pytest.approx(wanted)
    assert quantities(logits + 5)[0].tolist() == pytest.approx([wanted[0] + 5, *wanted[1:3], wanted[3] + 5])


def test_what_is_measured_is_what_generation_saw(tiny: LanguageModel, examples: Rows) -> None:
    row = examples["forget"][0]
    prompt = torch.tensor([tiny.encoder.prompt(row.question or "")])
    generated = tiny.base.generate(  # type: ignore[operator]
        prompt,
        max_new_tokens=8,
        do_sample=False,
        eos_token_id=sorted(tiny.encoder.stop_ids),
        output_logits=True,
        return_dict_in_generate=True,
    )
    wanted = quantities(torch.cat(generated.logits)).double().numpy()
    found = Confidence(Confidence.Config(max_new_tokens=8))._quantities(tiny, [row])
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-4)


def test_the_same_model_twice_is_at_no_distance(tiny_folder: Path, examples: Rows) -> None:
    given = context(tiny_folder, examples, torch.zeros(96), tensors={}, max_rows=3)
    found = Confidence(Confidence.Config(max_new_tokens=6)).measure(given)
    distances = [row[-2:] for row in found.tables[0].rows if row[2] == "unlearned"]
    assert distances == [[0, 0]] * 2 * len(QUANTITIES)
    assert [chart.title for chart in found.charts] == [quantity.name for quantity in QUANTITIES]


def test_a_model_that_says_one_thing_only_is_far_from_the_original(tiny_folder: Path, examples: Rows) -> None:
    push = 1000 * torch.randn(96, generator=torch.Generator().manual_seed(0))
    found = Confidence(Confidence.Config(max_new_tokens=6)).measure(context(tiny_folder, examples, push, max_rows=3))
    far = {(row[0], row[1]): row[-2] for row in found.tables[0].rows if row[2] == "unlearned"}
    assert far["MaxLogit", "forget"] > 0.5
