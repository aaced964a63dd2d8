"""Weights read from a folder one at a time are those of the loaded model; what is stored otherwise must be loaded."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from peft import LoraConfig, get_peft_model
from random_models import random_network

from expunge.models.base import LanguageModel
from expunge.models.config import ModelConfig
from expunge.models.load import wrap_model
from expunge.models.matrices import plain_weights
from expunge.models.stored_weights import stored_weights


def test_they_are_those_of_the_loaded_model(tiny: LanguageModel, tiny_folder: Path) -> None:
    found = stored_weights(ModelConfig(name=str(tiny_folder)), tiny)
    assert found is not None
    weights = {name: weight.detach().clone() for name, weight in plain_weights(tiny)}
    with torch.no_grad():
        for _, weight in plain_weights(tiny):
            weight.zero_()
    assert all(torch.equal(found[name], weight) for name, weight in weights.items())
    with pytest.raises(KeyError):
        found["other"]


@pytest.mark.parametrize("name", ["Mixtral", "GPT2"])
def test_experts_that_are_put_together_must_be_loaded(tiny: LanguageModel, tmp_path: Path, name: str) -> None:
    network = random_network(name)
    network.save_pretrained(tmp_path)
    model = wrap_model(network, tiny.tokenizer, ModelConfig(name="random", precision="float32"))
    found = stored_weights(ModelConfig(name=str(tmp_path)), model)
    assert (found is None) == (name == "Mixtral")
    assert found is None or all(torch.equal(found[key], weight) for key, weight in plain_weights(model))


def test_other_models_and_adapters_must_be_loaded(tiny: LanguageModel, tiny_folder: Path, tmp_path: Path) -> None:
    adapted = get_peft_model(tiny.network, LoraConfig(r=2, target_modules=["down_proj"]))
    adapted.save_pretrained(tmp_path)
    tiny.network = adapted.unload()
    assert stored_weights(ModelConfig(name=str(tmp_path / "nowhere" / "at" / "all")), tiny) is None
    assert stored_weights(ModelConfig(name=str(tmp_path)), tiny) is None
    (tmp_path / "model.gguf").write_bytes(b"GGUF")
    assert stored_weights(ModelConfig(name=str(tmp_path / "model.gguf")), tiny) is None
