"""What is saved loads again: by transformers, by us, in the dtype it came in."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from random_models import ARCHITECTURES, random_network
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from expunge.models.adapter import add_lora
from expunge.models.base import LanguageModel
from expunge.models.config import LoraConfig, ModelConfig
from expunge.models.load import load_model
from expunge.models.save import TENSORS, save_model
from expunge.models.source import ModelOrigin

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


@pytest.mark.parametrize("name", [*ARCHITECTURES, "Mixtral"])
def test_every_architecture_is_copied_in_its_own_names(
    name: str, tokenizer: PreTrainedTokenizerBase, tmp_path: Path
) -> None:
    """Untouched: the same bytes. One block's matrices moved: those alone differ, also where experts are fused."""
    options = {"num_local_experts": 4} if name == "Mixtral" else ARCHITECTURES[name]
    network = random_network(name, **options)
    network.resize_token_embeddings(len(tokenizer))
    network.save_pretrained(tmp_path / "in", max_shard_size="30KB")
    tokenizer.save_pretrained(tmp_path / "in")
    model = load_model(ModelConfig(name=str(tmp_path / "in"), precision="float32"))
    save_model(model, tmp_path / "same")
    for path in (tmp_path / "in").iterdir():
        assert (tmp_path / "same" / path.name).read_bytes() == path.read_bytes(), path.name
    block = model.blocks()[1][1]
    with torch.no_grad():
        for weight in block.parameters():
            weight += 0.5
    save_model(model, tmp_path / "moved")
    before, after = (tensors(tmp_path / folder) for folder in ("in", "moved"))
    assert list(before) == list(after)
    changed = [key for key in before if not torch.equal(before[key], after[key])]
    assert changed == [key for key in before if ".1." in key.partition("experts")[0]]
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "moved")
    assert torch.equal(logits(again), logits(model.network))


def tensors(folder: Path) -> dict[str, Tensor]:
    return {name: value for path in sorted(folder.glob("*.safetensors")) for name, value in load_file(path).items()}


def test_older_readers_find_what_they_look_for(tiny: LanguageModel, tmp_path: Path) -> None:
    """transformers 4 takes the base of the rotary embedding, the dtype and the tokenizer's class by older names."""
    tiny.origin = ModelOrigin()
    tiny.base.config.rope_parameters = {"rope_type": "linear", "factor": 2.0, "rope_theta": 50000.0}
    save_model(tiny, tmp_path / "out", card="# A card")
    config = json.loads((tmp_path / "out" / "config.json").read_text())
    assert config["rope_theta"] == config["rope_parameters"]["rope_theta"] == 50000.0
    assert config["rope_scaling"] == {"rope_type": "linear", "factor": 2.0}
    assert config["torch_dtype"] == config["dtype"] == "float32"
    tokenizer = json.loads((tmp_path / "out" / "tokenizer_config.json").read_text())
    assert tokenizer["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert (tmp_path / "out" / "README.md").read_text() == "# A card"
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    assert again.config.rope_parameters["rope_theta"] == 50000.0
    assert again.config.rope_parameters["factor"] == 2.0


def test_a_generation_config_that_transformers_does_not_save(tiny: LanguageModel, tmp_path: Path) -> None:
    tiny.origin = ModelOrigin()
    tiny.base.generation_config.temperature = 0.5
    with pytest.raises(ValueError, match="temperature"):
        tiny.base.save_pretrained(tmp_path / "refused")
    save_model(tiny, tmp_path / "out")
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "out").generation_config.temperature == 0.5
    assert tiny.base.generation_config.temperature == 0.5


def test_files_get_the_mode_of_the_umask(tiny: LanguageModel, tmp_path: Path) -> None:
    save_model(tiny, tmp_path / "out", tensors={"direction": torch.ones(3)})
    (tmp_path / "probe").touch()
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    assert {path.stat().st_mode for path in files} == {(tmp_path / "probe").stat().st_mode}


def test_a_server_that_reads_every_safetensors_file_finds_weights_only(tiny: LanguageModel, tmp_path: Path) -> None:
    save_model(tiny, tmp_path / "out", tensors={"direction": torch.ones(3)})
    names = {name for path in (tmp_path / "out").glob("*.safetensors") for name in load_file(path)}
    assert names <= {name for name, _ in tiny.base.named_parameters()}
    assert torch.equal(load_file(tmp_path / "out" / TENSORS)["direction"], torch.ones(3))
