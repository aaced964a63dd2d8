"""What every filler of the forget and the retain slot keeps; a new file is picked up by itself.

The reference is taken before the weights are moved, or a KL would be zero and its tests would pass with nothing shown.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
import torch
from torch.nn.functional import pad

from expunge.core.plugins import ROOT, find, names
from expunge.data.batch import Batch, collate
from expunge.data.example import Example
from expunge.losses.base import Loss, Setup, TuningConfig
from expunge.models.base import LanguageModel
from expunge.models.forward import Forward, RowSet, row_set
from expunge.models.reference_weights import OriginalWeights

FILLERS = [(slot, name) for slot in ("forget", "retain") for name in names(slot) if name != "none"]
NUM_ROWS = 4
STRANGE = "Zyx wvut srq ponm lkj ihgf edc ba, zyx wvut srq ponm lkj."
"""An answer that the model would never give: a loss that vanishes where all is well does not vanish there."""
CLOSE = {"rtol": 1e-5, "atol": 1e-6}


@dataclass(frozen=True)
class Subject:
    """A filler beside a model whose weights have moved since the reference was taken."""

    filler: Loss
    model: LanguageModel
    rows: RowSet

    def batch(self, indices: Sequence[int], pad_id: int = 0) -> Batch:
        return collate([self.rows.sequences[index] for index in indices], indices, pad_id)

    def loss(self, batch: Batch) -> torch.Tensor:
        return self.filler.loss(Forward(self.model, batch, self.rows))


@pytest.fixture(params=FILLERS, ids=lambda filler: "/".join(filler))
def subject(request: pytest.FixtureRequest, tiny: LanguageModel, examples: dict[str, tuple[Example, ...]]) -> Subject:
    slot, name = request.param
    build: type[Loss] = find(slot, name, Loss)
    filler = build(build.Config())
    known = examples["forget"][:NUM_ROWS]
    rows = (*known[:-1], replace(known[-1], answer=STRANGE))
    sequences = [tiny.encoder.example(row) for row in rows]
    assert len({len(row.ids) for row in sequences}) > 1, "rows of one length would need no padding"
    setup = Setup(tiny, rows, sequences, "0/forget", 1, examples["retain"], tune=_tune)
    filler.prepare(setup)
    kept = row_set(tiny, sequences, filler.needs)
    filler.start(tiny, lambda _, change: change)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in tiny.network.parameters():
            weight += 0.02 * torch.randn(weight.shape, generator=generator)
    return Subject(filler, tiny, kept)


def _tune(setup: Setup, config: TuningConfig) -> OriginalWeights:
    """Weights a little off in place of fine-tuned ones."""
    generator = torch.Generator().manual_seed(2)
    moved = [one + 0.1 * torch.randn(one.shape, generator=generator) for one in setup.model.trainable()]
    return OriginalWeights(setup.model, moved)


def test_defaults_give_a_finite_scalar_other_than_zero(subject: Subject) -> None:
    loss = subject.loss(subject.batch(range(NUM_ROWS)))
    assert loss.shape == ()
    assert loss.isfinite()
    assert loss.abs() > 1e-4
    assert set(subject.filler.logs) <= set(subject.filler.logged), "declare it: a guard's bound may name it"


def test_gradient_reaches_the_policy(subject: Subject) -> None:
    subject.loss(subject.batch(range(NUM_ROWS))).backward()
    moved = [weight.grad for weight in subject.model.network.parameters() if weight.grad is not None]
    assert all(gradient.isfinite().all() for gradient in moved)
    first = subject.model.blocks()[0][1].mlp.down_proj.weight
    assert first.grad is not None
    assert first.grad.abs().max() > 0


def test_padding_cannot_change_the_loss(subject: Subject) -> None:
    """Nine more columns, filled with another token than the usual padding."""
    plain = subject.batch(range(NUM_ROWS))
    other = subject.batch(range(NUM_ROWS), pad_id=7)
    wider = replace(
        other, input_ids=pad(other.input_ids, (0, 9), value=7), attention_mask=pad(other.attention_mask, (0, 9))
    )
    torch.testing.assert_close(subject.loss(wider), subject.loss(plain), **CLOSE)


def test_order_cannot_change_the_loss(subject: Subject) -> None:
    torch.testing.assert_close(
        subject.loss(subject.batch([2, 0, 3, 1])), subject.loss(subject.batch(range(4))), **CLOSE
    )


def test_rows_accumulated_one_by_one_are_the_batch(subject: Subject) -> None:
    """Loss and gradient are means over rows: 4 micro-batches of 1 give what 1 batch of 4 gives."""
    matrix = subject.model.blocks()[0][1].mlp.down_proj.weight
    whole = subject.loss(subject.batch(range(NUM_ROWS)))
    apart = torch.stack([subject.loss(subject.batch([index])) for index in range(NUM_ROWS)]).mean()
    torch.testing.assert_close(apart, whole, **CLOSE)
    wanted, found = (torch.autograd.grad(loss, matrix)[0] for loss in (whole, apart))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4 * wanted.abs().max().item())


def test_same_seed_same_bits(subject: Subject) -> None:
    first, second = (subject.loss(subject.batch(range(NUM_ROWS))) for _ in range(2))
    assert torch.equal(first, second)


@pytest.mark.parametrize(("slot", "name"), FILLERS)
def test_docstring_is_a_listing_line_that_names_its_source(slot: str, name: str) -> None:
    tree = ast.parse((ROOT / slot / f"{name}.py").read_text(encoding="utf-8"))
    first = (ast.get_docstring(tree) or "").split("\n")[0]
    assert first.endswith("."), first
    assert ": " in first, first
    assert "(arXiv:" in first, first
