"""Weights that are others for a while: changed as told, and back to the bit, whatever happens."""

from __future__ import annotations

import gc
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from expunge.core.errors import ModelLost
from expunge.models.base import LanguageModel
from expunge.models.matrices import block_matrices, plain_weights
from expunge.models.temporary_weights import changed_weights
from expunge.models.tensor_store import TensorStore
from expunge.models.weight_backup import weight_backup


def test_only_what_is_changed_differs_and_all_comes_back(tiny: LanguageModel) -> None:
    before = tiny.fingerprint()
    names = block_matrices(tiny)
    assert len(names) == 3 * 7  # blocks, with four matrices of attention and three of the MLP
    kept = {name: weight.detach().clone() for name, weight in plain_weights(tiny)}
    with changed_weights(tiny, lambda name, weight: 2 * weight if name in names else None):
        for name, weight in plain_weights(tiny):
            assert torch.equal(weight, 2 * kept[name] if name in names else kept[name])
        assert tiny.fingerprint() != before
    assert tiny.fingerprint() == before


def test_it_comes_back_after_an_error(tiny: LanguageModel) -> None:
    before = tiny.fingerprint()
    with pytest.raises(ZeroDivisionError), changed_weights(tiny, lambda _, weight: weight + 1):
        _ = 1 / 0
    assert tiny.fingerprint() == before


def test_tied_weights_are_changed_once(tiny: LanguageModel) -> None:
    asked = []
    with changed_weights(tiny, lambda name, weight: asked.append(name)):
        assert tiny.output_matrix.weight is tiny.base.get_input_embeddings().weight
    assert len(asked) == len(set(asked))
    assert not any("lm_head" in name for name in asked)


def test_nothing_but_one_weight_is_there_twice(tiny: LanguageModel) -> None:
    """The most bytes of weights at any moment: the model's, and a changed weight before it is put in place."""
    own = {weight.data_ptr() for weight in tiny.base.parameters()}
    largest = max(weight.nbytes for weight in tiny.base.parameters())
    kept = weight_backup(tiny.base)
    others = matrices_outside(tiny)
    for factor in (2, 3):
        with changed_weights(tiny, lambda _, weight, by=factor: by * weight, kept):
            assert {weight.data_ptr() for weight in tiny.base.parameters()} == own
            assert matrices_outside(tiny) - others <= largest
            for name, weight in plain_weights(tiny):
                assert torch.equal(weight, factor * kept[name])


def matrices_outside(model: LanguageModel) -> int:
    """Bytes of all tensors of two axes that are no weights of a model."""
    own = {weight.data_ptr() for weight in model.base.parameters()}
    alive = [one for one in gc.get_objects() if type(one) is torch.Tensor and one.ndim == 2]
    return sum(one.nbytes for one in alive if one.data_ptr() not in own)


def test_a_weight_that_cannot_be_put_back_ends_everything(tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    def cut(self: Any, offset: int, tensor: torch.Tensor) -> None:
        raise OSError(5, "Input/output error")

    with pytest.raises(ModelLost, match="cannot be read back"), changed_weights(tiny, lambda _, weight: 2 * weight):
        monkeypatch.setattr(TensorStore, "_read_into", cut)


def test_an_adapter_is_merged_first_and_itself_again_afterwards(tiny: LanguageModel) -> None:
    plain = {name: weight.detach().clone() for name, weight in plain_weights(tiny)}
    tiny.network = get_peft_model(tiny.network, LoraConfig(r=2, target_modules=["down_proj"]))
    with torch.no_grad():
        for name, weight in tiny.network.named_parameters():
            if "lora_B" in name:
                weight += 1
    assert [name for name, _ in plain_weights(tiny)] == list(plain)
    before = {name: weight.detach().clone() for name, weight in tiny.network.named_parameters()}
    seen = {}

    def look(name: str, weight: torch.Tensor) -> None:
        seen[name] = not torch.equal(weight, plain[name])

    with changed_weights(tiny, look):
        pass
    assert {name for name, moved in seen.items() if moved} == {name for name in plain if "down_proj" in name}
    for name, weight in tiny.network.named_parameters():
        assert torch.equal(weight, before[name])
