"""The original weights come back for a while, and the trained ones after it, to the bit."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from expunge.core.errors import UserError
from expunge.data.example import Example
from expunge.models.adapter import add_lora
from expunge.models.base import LanguageModel
from expunge.models.config import LoraConfig, ModelConfig
from expunge.models.forward import score_rows
from expunge.models.load import load_model
from expunge.models.reference_weights import OriginalWeights, weights_of


@pytest.mark.parametrize("adapter", [False, True])
def test_original_weights_are_swapped_in_and_out(
    tiny: LanguageModel, examples: dict[str, tuple[Example, ...]], adapter: bool
) -> None:
    names = [name for name, _ in tiny.network.named_parameters()]
    if adapter:
        add_lora(tiny, [name for name in names if "proj" in name], LoraConfig(r=2), 0)
    else:
        tiny.freeze_but(names)
    rows = [tiny.encoder.example(examples["forget"][0])]
    before = score_rows(tiny, rows)[0]
    original = OriginalWeights(tiny)
    optimizer = torch.optim.SGD(tiny.trainable(), lr=0.1)

    def step() -> None:
        for weight in tiny.trainable():
            weight.grad = torch.ones_like(weight)
        optimizer.step()

    step()
    moved = [weight.detach().clone() for weight in tiny.trainable()]
    for _ in range(2):
        with original.swapped_in():
            assert torch.equal(score_rows(tiny, rows)[0], before)
        assert all(torch.equal(one, other) for one, other in zip(tiny.trainable(), moved, strict=True))
    with pytest.raises(ZeroDivisionError), original.swapped_in():
        raise ZeroDivisionError
    assert all(torch.equal(one, other) for one, other in zip(tiny.trainable(), moved, strict=True))
    assert not torch.equal(score_rows(tiny, rows)[0], before)
    step()
    with original.swapped_in():
        assert torch.equal(score_rows(tiny, rows)[0], before), "training must not reach the copy"


def test_weights_of_another_model(tiny: LanguageModel, tiny_folder: Path) -> None:
    """Moved weights see the reference for a while; a reference that differs elsewhere is refused."""
    other = load_model(ModelConfig(name=str(tiny_folder)))
    trained = "model.layers.1.mlp.down_proj.weight"
    tiny.freeze_but([trained])
    before = tiny.trainable()[0].detach().clone()
    with torch.no_grad():
        tiny.trainable()[0].add_(1)
    reference = weights_of(other, tiny)
    with reference.swapped_in():
        assert torch.equal(tiny.trainable()[0], before)
    assert torch.equal(tiny.trainable()[0], before + 1)
    tiny.freeze_but(["model.layers.0.mlp.down_proj.weight"])
    with pytest.raises(UserError, match=f"model.reference: .* differs from the model in {trained}"):
        weights_of(other, tiny)
