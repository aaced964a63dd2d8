"""What is saved loads again: by transformers, by us, in the dtype it came in."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer

from expunge.models.adapter import add_lora
from expunge.models.base import LanguageModel
from expunge.models.config import LoraConfig, ModelConfig
from expunge.models.load import load_model
from expunge.models.save import save_model

IDS = torch.arange(5, 25)[None]


@torch.no_grad()
def logits(network: torch.nn.Module) -> Tensor:
    return network.eval()(input_ids=IDS).logits


def moved(model: LanguageModel) -> LanguageModel:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in model.network.parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=generator)
    return model


def dtypes(folder: Path) -> set[str]:
    with safe_open(folder / "model.safetensors", "pt") as file:
        return {file.get_slice(name).get_dtype() for name in file.keys()}  # noqa: SIM118 - not a dict


def test_a_saved_folder_is_an_ordinary_transformers_model(tiny: LanguageModel, tmp_path: Path) -> None:
    save_model(moved(tiny), tmp_path / "out", card="# A card")
    network = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert torch.equal(logits(network), logits(tiny.network))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.chat_template == tiny.tokenizer.chat_template
    assert tokenizer("Aurelia wrote it.")["input_ids"] == tiny.tokenizer("Aurelia wrote it.")["input_ids"]
    assert (tmp_path / "out" / "README.md").read_text().startswith("# A card")
    assert load_model(ModelConfig(name=str(tmp_path / "out"))).fingerprint() == tiny.fingerprint()


def test_an_adapter_folder_loads_merged(tiny: LanguageModel, tmp_path: Path) -> None:
    """Base weights stay what they were; the folder holds the adapter alone and names its base."""
    names = [name for name, _ in tiny.network.named_parameters()]
    add_lora(tiny, names, LoraConfig(r=4), seed=0)
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for weight in tiny.trainable():
            weight += 0.05 * torch.randn(weight.shape, generator=generator)
    save_model(tiny, tmp_path / "out")
    assert not (tmp_path / "out" / "config.json").exists()
    loaded = load_model(ModelConfig(name=str(tmp_path / "out")))
    assert not hasattr(loaded.network, "peft_config")
    torch.testing.assert_close(logits(loaded.network), logits(tiny.network), rtol=0, atol=1e-4)
    base = load_model(ModelConfig(name=str(tiny.base.name_or_path)))
    assert (logits(base.network) - logits(tiny.network)).abs().max() > 0.1


def test_a_bfloat16_model_is_trained_in_float32_and_saved_in_bfloat16(tiny: LanguageModel, tmp_path: Path) -> None:
    tiny.network.to(torch.bfloat16).save_pretrained(tmp_path / "half")
    tiny.tokenizer.save_pretrained(tmp_path / "half")
    model = moved(load_model(ModelConfig(name=str(tmp_path / "half"))))
    assert {weight.dtype for weight in model.network.parameters()} == {torch.float32}
    model.freeze_but([name for name, _ in model.network.named_parameters()])
    model.settle()
    settled = {name: weight.clone() for name, weight in model.network.named_parameters()}
    save_model(model, tmp_path / "out")
    assert dtypes(tmp_path / "half") == dtypes(tmp_path / "out") == {"BF16"}
    again = load_model(ModelConfig(name=str(tmp_path / "out")))
    assert all(torch.equal(weight, settled[name]) for name, weight in again.network.named_parameters())


def test_a_failed_save_leaves_the_older_folder(
    tiny: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_model(tiny, tmp_path / "out", card="the first")

    def fail(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("expunge.models.save.copy_with", fail)
    with pytest.raises(KeyboardInterrupt):
        save_model(tiny, tmp_path / "out", card="the second")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert (tmp_path / "out" / "README.md").read_text().startswith("the first")
