"""Loading refuses what leads nowhere, in one line that says where."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from expunge.core.errors import UserError
from expunge.models.adapter import add_lora
from expunge.models.base import LanguageModel
from expunge.models.config import LoraConfig, ModelConfig
from expunge.models.load import load_model
from expunge.models.save import save_model


def copied(source: Path, target: Path) -> Path:
    return Path(shutil.copytree(source, target))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("smollm-135m", r"model\.name: no model 'smollm-135m'; did you mean smollm2-135m"),
        ("/no/such/folder", r"model\.name: /no/such/folder: no such file or folder"),
        ("./here", r"model\.name: \./here: no such file or folder"),
        ("weights.gguf", r"model\.name: weights\.gguf: no such file or folder"),
        ("a/b/c", r"model\.name: a/b/c: no such file or folder"),
    ],
)
def test_names_that_lead_nowhere(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        load_model(ModelConfig(name=name))


def test_folder_without_a_config(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"{tmp_path}: no config.json in this folder"):
        load_model(ModelConfig(name=str(tmp_path)))


def test_hub_out_of_reach_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match=r"cannot load 'nobody/nothing': .*give a local folder or an embedded name"):
        load_model(ModelConfig(name="nobody/nothing"))


@pytest.mark.parametrize("damage", ["config", "weights", "no weights", "a tensor", "no tokenizer"])
def test_damaged_folder_is_one_clear_line(tiny_folder: Path, tmp_path: Path, damage: str) -> None:
    folder = copied(tiny_folder, tmp_path / "model")
    if damage == "config":
        (folder / "config.json").write_text('{"model_type": ')
    elif damage == "weights":
        whole = (folder / "model.safetensors").read_bytes()
        (folder / "model.safetensors").write_bytes(whole[: len(whole) // 2])
    elif damage == "no weights":
        (folder / "model.safetensors").unlink()
    elif damage == "a tensor":
        tensors = load_file(folder / "model.safetensors")
        del tensors["model.layers.1.mlp.down_proj.weight"]
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    else:
        for path in folder.glob("tokenizer*"):
            path.unlink()
    with pytest.raises(UserError, match=f"model.name: cannot load '{folder}': ") as caught:
        load_model(ModelConfig(name=str(folder)))
    assert "\n" not in str(caught.value)


def test_pickled_weights_are_refused(tiny_folder: Path, tmp_path: Path) -> None:
    """A pickle runs code when it is opened: safetensors only."""
    folder = copied(tiny_folder, tmp_path / "model")
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(UserError, match=r"model\.name: cannot load"):
        load_model(ModelConfig(name=str(folder)))


def test_a_device_that_is_not_there(tiny_folder: Path) -> None:
    with pytest.raises(UserError, match=r"model\.device: cannot use 'cuda:7'"):
        load_model(ModelConfig(name=str(tiny_folder), device="cuda:7"))


@pytest.mark.parametrize("damage", ["no weights", "no base"])
def test_damaged_adapter_folder_is_one_clear_line(tiny: LanguageModel, tmp_path: Path, damage: str) -> None:
    add_lora(tiny, [name for name, _ in tiny.network.named_parameters()], LoraConfig(r=2), seed=0)
    save_model(tiny, tmp_path / "adapter")
    if damage == "no weights":
        (tmp_path / "adapter" / "adapter_model.safetensors").unlink()
    else:
        path = tmp_path / "adapter" / "adapter_config.json"
        path.write_text(path.read_text().replace(tiny.base.name_or_path, "/gone/base"))
    with pytest.raises(UserError, match="/gone/base" if damage == "no base" else "adapter") as caught:
        load_model(ModelConfig(name=str(tmp_path / "adapter")))
    assert "\n" not in str(caught.value)
