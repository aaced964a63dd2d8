"""Whatever a model came from and however it was trained: another process loads what was measured."""

from __future__ import annotations

import copy
import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from model_sources import COMMIT, HUB_ID, NAMED, OTHER_TEMPLATE, adapted, plain
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from expunge.models.adapter import add_lora
from expunge.models.base import LanguageModel
from expunge.models.config import LoraConfig, ModelConfig
from expunge.models.load import load_model, wrap_model
from expunge.models.pull import cache_dir, embedded
from expunge.models.save import save_model

WAYS = [*NAMED, "loaded", "loaded in bfloat16", "loaded PeftModel"]
TRAININGS = ["full", "lora"]


@dataclass
class Case:
    """One model, trained, measured and saved."""

    folder: Path
    logits: torch.Tensor
    stored_logits: torch.Tensor | None
    answer: list[int]
    use_cache: bool
    prompt: str
    moved: bool


@pytest.fixture(scope="module")
def cases(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[tuple[str, str], Case]]:
    root = tmp_path_factory.mktemp("round_trip")
    name = "smollm2-135m"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(root / "hub"))
        names = {way: build(tiny_folder, root / way) for way, build in NAMED.items()}
        try:
            yield {
                (way, training): _case(way, training, names, tiny_folder, root / f"{way}, {training}")
                for way in WAYS
                for training in TRAININGS
            }
        finally:
            shutil.rmtree(cache_dir() / f"{name}-{embedded()[name].sha256[:12]}")


@pytest.fixture(scope="module")
def read(cases: dict[tuple[str, str], Case], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What one fresh process says of all folders, from another working folder, without network or our cache."""
    root = tmp_path_factory.mktemp("reader")
    (root / "folders.json").write_text(json.dumps([str(case.folder) for case in cases.values()]))
    hub = next(case.folder for case in cases.values()).parent / "hub"
    script = Path(__file__).with_name("plain_reader.py")
    subprocess.run(
        [sys.executable, str(script), "folders.json", "out.json"],
        cwd=root,
        check=True,
        capture_output=True,
        env={"HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(hub), "PATH": "", "OMP_NUM_THREADS": "1"},
    )
    return json.loads((root / "out.json").read_text())


@pytest.mark.parametrize("training", TRAININGS)
@pytest.mark.parametrize("way", WAYS)
def test_another_process_loads_what_was_measured(
    cases: dict[tuple[str, str], Case], read: dict[str, Any], way: str, training: str
) -> None:
    case = cases[way, training]
    found = read[str(case.folder)]
    assert case.moved, "nothing was learned, so that nothing is tested"
    torch.testing.assert_close(torch.tensor(found["logits"]), case.logits, rtol=0, atol=1e-5)
    assert found["answer"] == case.answer
    assert found["use_cache"] == case.use_cache
    assert found["prompt"] == case.prompt
    half = {"bfloat16": torch.bfloat16, "float16": torch.float16, "loaded in bfloat16": torch.bfloat16}
    assert found["dtype"] == str(half.get(way, torch.float32))
    if way in half and not (case.folder / "adapter_config.json").is_file():
        assert torch.equal(torch.tensor(found["stored_logits"]), case.stored_logits), "bit by bit"
    if way == "folder":
        assert found["temperature"] == pytest.approx(0.9)


def test_an_adapter_is_saved_where_its_base_has_a_name_and_is_merged_elsewhere(
    cases: dict[tuple[str, str], Case], tiny_folder: Path
) -> None:
    """A hub id with its commit, or an absolute path: names that mean the same in every folder."""
    bases = {}
    for way in WAYS:
        path = cases[way, "lora"].folder / "adapter_config.json"
        if path.is_file():
            found = json.loads(path.read_text())
            bases[way] = (found["base_model_name_or_path"], found["revision"])
    assert bases.pop("hub") == (HUB_ID, COMMIT)
    assert set(bases) == {"folder", "bfloat16", "float16", "untied", "sharded"}
    for base, revision in bases.values():
        assert Path(base).is_absolute()
        assert (Path(base) / "config.json").is_file()
        assert revision is None


def test_an_adapter_folder_brings_its_template_along(cases: dict[tuple[str, str], Case], tiny_folder: Path) -> None:
    for way in ("adapter", "adapter on a tied head", "adapter on an adapter"):
        folder = cases[way, "full"].folder
        assert AutoTokenizer.from_pretrained(folder).chat_template == OTHER_TEMPLATE


def test_only_changed_tensors_are_not_those_of_the_source(tiny_folder: Path, tmp_path: Path) -> None:
    """One trained matrix: every file, and every other tensor, is the source's byte for byte; nothing old is copied."""
    source, out = Path(plain(tiny_folder, tmp_path / "source")), tmp_path / "out"
    model = load_model(ModelConfig(name=str(source)))
    moved = "model.layers.1.mlp.down_proj.weight"
    model.freeze_but([moved])
    with torch.no_grad():
        model.trainable()[0].add_(0.25)
    model.finish()
    save_model(model, out, "# Unlearned")
    left_out = {"pytorch_model.bin", "model.gguf", "consolidated.safetensors", "optimizer.pt", "onnx"}
    assert {path.name for path in out.iterdir()} == {
        *({path.name for path in source.iterdir()} - left_out),
        "README.original.md",
    }
    for path in (path.relative_to(source) for path in source.rglob("*") if path.is_file()):
        if path.parts[0] not in left_out and path.name not in ("model.safetensors", "README.md"):
            assert (out / path).read_bytes() == (source / path).read_bytes(), path
    assert (out / "README.original.md").read_bytes() == (source / "README.md").read_bytes()
    old, new = ((folder / "model.safetensors").read_bytes() for folder in (source, out))
    size = 8 + int.from_bytes(old[:8], "little")
    header = json.loads(old[8:size])
    start, end = (size + offset for offset in header[moved]["data_offsets"])
    assert new[:start] == old[:start]
    assert new[end:] == old[end:]
    assert torch.equal(
        load_file(out / "model.safetensors")[moved], load_file(source / "model.safetensors")[moved] + 0.25
    )


def test_a_second_run_on_a_result_starts_from_it(tiny_folder: Path) -> None:
    """A peft model that was merged, and one whose training was merged, are plain models that can be trained again."""
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_folder)
    network = adapted(tiny_folder)
    model = wrap_model(network, tokenizer, ModelConfig(name="first", precision="float32"))
    before = _logits(model)
    model.merge_adapter()
    torch.testing.assert_close(_logits(model), before, rtol=0, atol=1e-4)
    again = wrap_model(model.network, tokenizer, ModelConfig(name="again", precision="float32"))
    add_lora(again, [name for name, _ in again.network.named_parameters()], LoraConfig(r=2), seed=0)
    _train(again)
    after = _logits(again)
    again.finish()
    assert not again.is_adapted
    torch.testing.assert_close(_logits(again), after, rtol=0, atol=1e-4)
    assert torch.equal(_logits(model), _logits(again)), "the caller's object is the result"


def _case(way: str, training: str, names: dict[str, str], tiny_folder: Path, out: Path) -> Case:
    model = _load(way, names, tiny_folder)
    before = _logits(model)
    model.merge_adapter()
    if training == "lora":
        add_lora(model, [name for name, _ in model.network.named_parameters()], LoraConfig(r=4), seed=0)
    else:
        model.freeze_but([name for name, _ in model.network.named_parameters()])
    _train(model)
    model.finish()
    use_cache = model.base.config.use_cache
    after, stored = _logits(model), None if model.is_adapted else _stored_logits(model)
    answer = model.network.generate(_ids(model), max_new_tokens=8, do_sample=False, pad_token_id=0)
    save_model(model, out, "# Unlearned")
    assert torch.equal(_logits(model), after), "saving changes nothing in memory"
    prompt = _prompt(model)
    moved = bool((after - before).abs().max() > 0.01) if after.shape == before.shape else True
    said = answer[0, _ids(model).shape[1] :].tolist()
    return Case(out, after.flatten(), stored, said, use_cache, prompt, moved)


def _load(way: str, names: dict[str, str], tiny_folder: Path) -> LanguageModel:
    if way in names:
        return load_model(ModelConfig(name=names[way]))
    tokenizer: Any = AutoTokenizer.from_pretrained(tiny_folder)
    config = ModelConfig(name=way, precision="float32")
    if way == "loaded PeftModel":
        return wrap_model(adapted(tiny_folder), tokenizer, config)
    dtype = torch.bfloat16 if "bfloat16" in way else torch.float32
    return wrap_model(AutoModelForCausalLM.from_pretrained(tiny_folder, dtype=dtype), tokenizer, config)


def _prompt(model: LanguageModel) -> str:
    turn = [{"role": "user", "content": "Who wrote it?"}]
    return str(model.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True))


def _ids(model: LanguageModel) -> torch.Tensor:
    return torch.tensor([model.tokenizer(_prompt(model), add_special_tokens=False)["input_ids"]])


@torch.no_grad()
def _logits(model: LanguageModel) -> torch.Tensor:
    """In float32, whatever the weights are in."""
    network = model.network
    if next(network.parameters()).dtype != torch.float32:
        network = copy.deepcopy(network).float()
    return network.eval()(_ids(model)).logits


@torch.no_grad()
def _stored_logits(model: LanguageModel) -> torch.Tensor:
    """In the dtype that the weights are stored in; buffers keep theirs."""
    network = copy.deepcopy(model.base)
    for name, parameter in network.named_parameters():
        parameter.data = parameter.data.to(model.stored_as(name))
    return network(_ids(model)).logits.float().flatten()


def _train(model: LanguageModel) -> None:
    """Two steps away from what the model says."""
    ids = _ids(model)
    for _ in range(2):
        loss = -model.network(ids, labels=ids).loss
        loss.backward()
        with torch.no_grad():
            for parameter in model.trainable():
                if parameter.grad is not None:
                    parameter -= 0.05 * parameter.grad / (parameter.grad.norm() + 1e-9)
                    parameter.grad = None
