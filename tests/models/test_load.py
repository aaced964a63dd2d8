"""Loading refuses what leads nowhere, in one line that says where."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from model_sources import gguf
from safetensors.torch import load_file, save_file
from torch import Tensor

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


def edited(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def reweighted(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    tensors = load_file(folder / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def indexed(folder: Path, file: str) -> None:
    names = list(load_file(folder / "model.safetensors"))
    (folder / "model.safetensors").rename(folder.parent / "outside.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, file)}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


DOWN = "model.layers.1.mlp.down_proj.weight"
DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "fewer layers": (lambda f: edited(f / "config.json", num_hidden_layers=2), r"no place for model\.layers\.2\."),
    "more layers": (lambda f: edited(f / "config.json", num_hidden_layers=4), r"lack model\.layers\.3\."),
    "other width": (lambda f: edited(f / "config.json", intermediate_size=128), r"down_proj\.weight has the shape"),
    "activation": (lambda f: edited(f / "config.json", hidden_act="nope"), "nope"),
    "quantized": (lambda f: edited(f / "config.json", quantization_config={"quant_method": "gptq", "bits": 4}), ""),
    "quantized by nobody": (
        lambda f: edited(f / "config.json", quantization_config={"quant_method": "nope"}),
        "quantized by 'nope'",
    ),
    "generation list": (lambda f: (f / "generation_config.json").write_text("[1]"), r"generation_config\.json: must"),
    "tokenizer list": (lambda f: (f / "tokenizer.json").write_text("[]"), r"tokenizer\.json: must hold a JSON object"),
    "tokenizer {}": (lambda f: (f / "tokenizer.json").write_text("{}"), "tokenizer"),
    "nan": (lambda f: reweighted(f, lambda t: t[DOWN].fill_(float("nan"))), f"hold NaN or infinity in {DOWN}"),
    "integers": (lambda f: reweighted(f, lambda t: t.update({DOWN: t[DOWN].char()})), f"{DOWN} is stored as I8"),
    "index": (lambda f: indexed(f, "../outside.safetensors"), "'../outside.safetensors', which is outside the folder"),
    "absolute": (lambda f: indexed(f, str(f.parent / "outside.safetensors")), "which is outside the folder"),
    "link": (lambda f: (f / "notes.txt").symlink_to("/etc/hostname"), "notes.txt is a link that leads outside"),
    "pickle": (
        lambda f: (f / "model.safetensors").rename(f / "pytorch_model.bin"),
        "so convert them where",
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_would_be_misread_is_refused_by_name(tiny_folder: Path, tmp_path: Path, damage: str) -> None:
    folder = copied(tiny_folder, tmp_path / "model")
    change, message = DAMAGE[damage]
    change(folder)
    with pytest.raises(UserError, match=message) as caught:
        load_model(ModelConfig(name=str(folder)))
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_buffers_of_older_versions_are_no_surplus(tiny_folder: Path, tmp_path: Path) -> None:
    folder = copied(tiny_folder, tmp_path / "model")
    reweighted(folder, lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(12)}))
    load_model(ModelConfig(name=str(folder)))


ADAPTER_DAMAGE: dict[str, tuple[Callable[[Path], object], str]] = {
    "own base": (lambda f: edited(f / "adapter_config.json", base_model_name_or_path=str(f)), "is its own base"),
    "base a number": (lambda f: edited(f / "adapter_config.json", base_model_name_or_path=3), "must be a name or path"),
    "no kind": (lambda f: edited(f / "adapter_config.json", peft_type=None), "no 'peft_type'"),
    "unknown kind": (lambda f: edited(f / "adapter_config.json", peft_type="LORE"), "did you mean LORA"),
    "prompts": (lambda f: edited(f / "adapter_config.json", peft_type="PROMPT_TUNING"), "cannot be merged"),
    "list": (lambda f: (f / "adapter_config.json").write_text("[]"), "must hold a JSON object"),
    "pickle": (lambda f: (f / "adapter_model.safetensors").rename(f / "adapter_model.bin"), "is a pickle"),
    "other names": (
        lambda f: renamed(f, lambda name: name.replace("layers", "blocks")),
        r"no place for model\.blocks\.0\..* \(and \d+ more\)",
    ),
    "one layer": (
        lambda f: renamed(f, lambda name: name if "layers.1." in name else None),
        "lacks model.layers.0",
    ),
    "rank": (lambda f: edited(f / "adapter_config.json", r=7), "size mismatch"),
}


def renamed(folder: Path, name_of: Callable[[str], str | None]) -> None:
    tensors = {name_of(name): tensor for name, tensor in load_file(folder / "adapter_model.safetensors").items()}
    save_file({name: tensor for name, tensor in tensors.items() if name}, folder / "adapter_model.safetensors")


def test_an_adapter_that_does_not_fit_is_refused_by_name(tiny: LanguageModel, tmp_path: Path) -> None:
    """Left out in silence, it would leave the base model to be measured in its place."""
    add_lora(tiny, [name for name, _ in tiny.network.named_parameters()], LoraConfig(r=2), seed=0)
    save_model(tiny, tmp_path / "adapter")
    for damage, (change, message) in ADAPTER_DAMAGE.items():
        folder = copied(tmp_path / "adapter", tmp_path / damage)
        change(folder)
        with pytest.raises(UserError, match=message) as caught:
            load_model(ModelConfig(name=str(folder)))
        assert "\n" not in str(caught.value)


def test_damaged_gguf_files_end_in_one_line(tiny_folder: Path, tmp_path: Path) -> None:
    whole = Path(gguf(tiny_folder, tmp_path / "good")).read_bytes()
    damaged = {
        "empty": b"",
        "magic": whole[:4],
        "cut": whole[: len(whole) // 2],
        "version": whole[:4] + (99).to_bytes(4, "little") + whole[8:],
        "text": b"not a model",
        "garbage": b"GGUF" + bytes(range(256)),
        "a weight": whole.replace(b"blk.1.attn_q", b"blk.1.attn_z"),
    }
    for name, content in damaged.items():
        path = tmp_path / f"{name}.gguf"
        path.write_bytes(content)
        with pytest.raises(UserError, match=str(path)) as caught:
            load_model(ModelConfig(name=str(path)))
        assert "\n" not in str(caught.value)


def test_a_device_without_numbers_is_refused(tiny_folder: Path) -> None:
    with pytest.raises(UserError, match=r"model\.device: cannot use 'meta'"):
        load_model(ModelConfig(name=str(tiny_folder), device="meta"))


def test_a_rank_that_no_layer_can_have_is_refused(tiny: LanguageModel) -> None:
    names = [name for name, _ in tiny.network.named_parameters()]
    with pytest.raises(UserError, match=r"model\.lora\.r: 100000000 is above"):
        add_lora(tiny, names, LoraConfig(r=100_000_000), seed=0)
