"""Model folders: damaged, incomplete, and of another kind than their config says."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bad_inputs import Call, damaged, family
from world import World

Break = Callable[[random.Random, Path], str]
"""Breaks a copy of a good model folder and says how."""


def _config(**changes: Any) -> Break:
    def change(rng: random.Random, model: Path) -> str:
        path = model / "config.json"
        tables = {**json.loads(path.read_text()), **changes}
        path.write_text(json.dumps({name: value for name, value in tables.items() if value is not _GONE}))
        return f"config.json with {', '.join(f'{name}={value}' for name, value in changes.items())}"

    return change


_GONE = object()


def _without(name: str) -> Break:
    def remove(rng: random.Random, model: Path) -> str:
        (model / name).unlink()
        return f"no {name}"

    return remove


def _holds(name: str, content: str) -> Break:
    def write(rng: random.Random, model: Path) -> str:
        (model / name).write_text(content, encoding="utf-8")
        return f"{name} that holds {content[:30]!r}"

    return write


def _damaged(name: str) -> Break:
    def break_it(rng: random.Random, model: Path) -> str:
        way, content = damaged(rng, (model / name).read_bytes())
        (model / name).write_bytes(content)
        return f"{name}: {way}"

    return break_it


def _weights(change: Callable[[dict[str, Any]], str]) -> Break:
    def rewrite(rng: random.Random, model: Path) -> str:
        from safetensors.torch import load_file, save_file

        tensors = load_file(model / "model.safetensors")
        what = change(tensors)
        save_file(tensors, model / "model.safetensors", {"format": "pt"})
        return what

    return rewrite


def _not_numbers(tensors: dict[str, Any]) -> str:
    tensors["model.layers.0.mlp.down_proj.weight"].fill_(float("nan"))
    return "weights that are NaN"


def _fewer(tensors: dict[str, Any]) -> str:
    del tensors["model.layers.1.mlp.up_proj.weight"]
    return "a weight missing"


def _renamed(tensors: dict[str, Any]) -> str:
    tensors["model.blocks.1.mlp.up_proj.weight"] = tensors.pop("model.layers.1.mlp.up_proj.weight")
    return "a weight of another name"


def _more(tensors: dict[str, Any]) -> str:
    for name in [name for name in tensors if "layers.1." in name]:
        tensors[name.replace("layers.1.", "layers.2.")] = tensors[name].clone()
    return "a block that the config does not have"


def _other_shape(tensors: dict[str, Any]) -> str:
    name = "model.layers.0.self_attn.q_proj.weight"
    tensors[name] = tensors[name][:, :-1].contiguous()
    return "a weight of another shape"


def _outside(rng: random.Random, model: Path) -> str:
    """A shard that lies outside of the folder."""
    (model / "model.safetensors").rename(model.parent / "outside.safetensors")
    name = rng.choice(["../outside.safetensors", str(model.parent / "outside.safetensors")])
    from safetensors import safe_open

    with safe_open(model.parent / "outside.safetensors", "pt") as file:
        names = list(file.keys())
    index = {"metadata": {}, "weight_map": dict.fromkeys(names, name)}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    return "a shard outside of the folder"


def _index(rng: random.Random, model: Path) -> str:
    (model / "model.safetensors").rename(model / "model-00001-of-00002.safetensors")
    index = rng.choice(["{}", "[]", '{"weight_map": 3}', '{"metadata": {}}', "nope"])
    (model / "model.safetensors.index.json").write_text(index)
    return f"an index that holds {index}"


def _pickle(rng: random.Random, model: Path) -> str:
    (model / "model.safetensors").rename(model / "pytorch_model.bin")
    return "weights as a pickle"


def _long_tokenizer(rng: random.Random, model: Path) -> str:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)
    tokenizer.add_tokens([f"extra{number}" for number in range(200)])
    tokenizer.save_pretrained(model)
    return "more tokens than rows of the embedding"


_TEMPLATES = (
    "{{ raise_exception('no') }}",
    "{% for x in %}",
    "{{ nothing.at.all }}",
    "{{ 1 / 0 }}",
    "{% if messages[0]['role'] == 'user' %}{{ raise_exception('no user') }}{% endif %}",
)

FAULTS: tuple[Break, ...] = (
    *(_without(name) for name in ("config.json", "model.safetensors", "tokenizer.json")),
    *(_damaged(name) for name in ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")),
    *(_holds("config.json", text) for text in ("[]", "3", "{}", '{"model_type": "no_such_model"}')),
    *(_holds("tokenizer.json", text) for text in ("{}", "[]", '{"version": "1.0"}')),
    *(_holds("tokenizer_config.json", text) for text in ("[]", "3")),
    *(_holds("generation_config.json", text) for text in ("[]", "{", "3")),
    *(_holds("chat_template.jinja", text) for text in _TEMPLATES),
    _config(hidden_size=64),
    _config(vocab_size=10),
    _config(num_hidden_layers=5),
    _config(num_hidden_layers=1),
    _config(intermediate_size=13),
    _config(hidden_act="no_such_activation"),
    _config(model_type="bert", architectures=["BertModel"]),
    _config(torch_dtype="nope", dtype="nope"),
    _config(num_attention_heads=0),
    _config(num_hidden_layers="two"),
    _config(quantization_config={"quant_method": "gptq", "bits": 4}),
    _config(quantization_config={"quant_method": "no_such_method"}),
    *(_weights(change) for change in (_not_numbers, _fewer, _renamed, _more, _other_shape)),
    *(_outside, _index, _pickle, _long_tokenizer),
)


def _call(rng: random.Random, world: World, name: str) -> list[str]:
    good = str(world.model)
    commands = ["run", "eval", "locate"]
    return [one.replace(good, name) for one in world.command(rng.choice(commands))]


@family
def model_folders(rng: random.Random, world: World, folder: Path) -> Call:
    """A model folder with one thing wrong."""
    shutil.copytree(world.model, folder / "broken")
    what = rng.choice(FAULTS)(rng, folder / "broken")
    return Call(f"model folder: {what}", _call(rng, world, "./broken"))


@family
def adapters(rng: random.Random, world: World, folder: Path) -> Call:
    """An adapter folder with one thing wrong."""
    import torch
    from safetensors.torch import save_file

    adapter = folder / "adapter"
    adapter.mkdir()
    config: dict[str, Any] = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(world.model),
        "r": 2,
        "lora_alpha": 4,
        "target_modules": ["q_proj"],
    }
    tensors = {}
    for layer in range(2):
        prefix = f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_"
        tensors |= {f"{prefix}A.weight": torch.zeros(2, 32), f"{prefix}B.weight": torch.zeros(32, 2)}
    first = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight"
    faults: dict[str, Callable[[], Any]] = {
        "tensors of other names": lambda: [
            tensors.update({name.replace("layers", "blocks"): tensors.pop(name)}) for name in list(tensors)
        ],
        "tensors for one block of two": lambda: [tensors.pop(name) for name in list(tensors) if "layers.1" in name],
        "tensors for a block that is not there": lambda: tensors.update(
            {first.replace("layers.0", "layers.7"): torch.zeros(2, 32)}
        ),
        "tensors of another shape": lambda: tensors.update({first: torch.zeros(2, 31)}),
        "no peft_type": lambda: config.pop("peft_type"),
        "an unknown peft_type": lambda: config.update(peft_type="NOPE"),
        "prompt tuning": lambda: config.update(peft_type="PROMPT_TUNING", num_virtual_tokens=4),
        "no base": lambda: config.pop("base_model_name_or_path"),
        "a base that is a number": lambda: config.update(base_model_name_or_path=3),
        "a base that is not there": lambda: config.update(base_model_name_or_path="/nowhere/at/all"),
        "itself as its base": lambda: config.update(base_model_name_or_path=str(adapter)),
        "modules that are not there": lambda: config.update(target_modules=["nope"]),
    }
    what = rng.choice([*sorted(faults), "no tensors", "a list as its config", "damaged tensors"])
    if what in faults:
        faults[what]()
    text = "[]" if what == "a list as its config" else json.dumps(config)
    (adapter / "adapter_config.json").write_text(text)
    if what != "no tensors":
        save_file(tensors, adapter / "adapter_model.safetensors")
    if what == "damaged tensors":
        (adapter / "adapter_model.safetensors").write_bytes(rng.randbytes(300))
    return Call(f"adapter folder: {what}", _call(rng, world, "./adapter"))


@family
def model_files(rng: random.Random, world: World, folder: Path) -> Call:
    """A model's name that leads nowhere, and damaged GGUF files."""
    contents = {
        "empty": b"",
        "four bytes": b"GGUF",
        "text": b"hello",
        "noise": b"GGUF" + rng.randbytes(400),
        "version 99": b"GGUF" + (99).to_bytes(4, "little") + bytes(64),
        "zeros": b"GGUF" + (3).to_bytes(4, "little") + bytes(rng.randrange(100)),
        "more tensors than bytes": b"GGUF" + (3).to_bytes(4, "little") + (10**6).to_bytes(8, "little") + bytes(8),
    }
    way = rng.choice([*sorted(contents), "an empty folder", "a text file", "no such file"])
    if way in contents:
        (folder / "bad.gguf").write_bytes(contents[way])
        return Call(f"GGUF: {way}", _call(rng, world, "./bad.gguf"))
    (folder / "empty").mkdir()
    (folder / "notes.txt").write_text("notes", encoding="utf-8")
    name = {"an empty folder": "./empty", "a text file": "./notes.txt", "no such file": "./missing.gguf"}[way]
    return Call(f"model: {way}", _call(rng, world, name))
