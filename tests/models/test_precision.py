"""The precision plan for machines that are not there, and what it makes of networks on this one."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import GPT2Config, GPT2LMHeadModel

from expunge.core.errors import UserError
from expunge.data.example import Example
from expunge.models.base import LanguageModel
from expunge.models.caller_state import lent, model_kept
from expunge.models.config import ModelConfig
from expunge.models.forward import row_set, score_rows
from expunge.models.load import helper_device, load_model, wrap_model
from expunge.models.partial import BlockStates, started
from expunge.models.precision import HALF, Hardware, hold, load_dtype, name_of, plan

F32, BF16, F16 = torch.float32, torch.bfloat16, torch.float16
MACHINES = {
    "CPU": Hardware("cpu"),
    "CPU with bfloat16 instructions": Hardware("cpu", bfloat16=True),
    "MPS": Hardware("mps"),
    "CUDA, Volta and Turing (V100, T4)": Hardware("cuda", float16=True),
    "CUDA, Ampere and newer": Hardware("cuda", bfloat16=True, float16=True),
}
DOCUMENT = Path(__file__).parents[2] / "docs" / "devices.md"


def test_the_documented_table_is_the_plan() -> None:
    lines = [
        f"| {machine} | {name_of(stored)} | {name_of(found.compute)} | {name_of(found.frozen)} | "
        f"{name_of(found.trained)} | {'yes' if found.scaled else 'no'} |"
        for machine, hardware in MACHINES.items()
        for stored in (F32, BF16, F16)
        for found in (plan("auto", hardware, stored),)
    ]
    table = [line for line in DOCUMENT.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    assert table[2:] == lines


@pytest.mark.parametrize(
    ("machine", "wanted", "stored", "compute", "frozen"),
    [
        ("CUDA, Ampere and newer", "float32", BF16, F32, F32),
        ("CUDA, Ampere and newer", "float16", BF16, F16, BF16),
        ("CUDA, Volta and Turing (V100, T4)", "float32", F16, F32, F32),
        ("CPU", "bfloat16", BF16, BF16, F32),
        ("CPU", "float16", F16, F16, F32),
        ("MPS", "bfloat16", BF16, BF16, BF16),
        ("MPS", "float16", F16, F16, F16),
        ("MPS", "float16", BF16, F16, F32),
        ("MPS", "bfloat16", F32, BF16, F32),
    ],
)
def test_a_precision_that_is_set(
    machine: str, wanted: str, stored: torch.dtype, compute: torch.dtype, frozen: torch.dtype
) -> None:
    found = plan(wanted, MACHINES[machine], stored)
    assert (found.compute, found.frozen, found.trained) == (compute, frozen, F32)


def test_a_card_older_than_volta_computes_in_float32() -> None:
    assert plan("auto", Hardware("cuda"), BF16).compute == F32


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("wanted", ["auto", "float32", "bfloat16", "float16"])
def test_weights_meet_in_a_product_that_takes_both(machine: str, wanted: str) -> None:
    """Without autocast all weights are float32; a frozen weight keeps every bit of the stored one."""
    for stored in (F32, *HALF):
        found = plan(wanted, MACHINES[machine], stored)
        assert found.autocast or found.frozen == F32
        assert found.frozen in (stored, F32)
        assert load_dtype(wanted, MACHINES[machine]) == "auto" or found.frozen == F32
        assert found.scaled == (found.compute == F16)


def test_hardware_is_that_of_the_device_which_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second card may be of another generation than the first, which is torch's current device."""
    current: list[int] = [0]

    class Device:
        def __init__(self, device: torch.device) -> None:
            self.index = device.index or 0

        def __enter__(self) -> None:
            current.append(self.index)

        def __exit__(self, *_: object) -> None:
            current.pop()

    old_and_new = [(7, 5), (8, 6)]
    monkeypatch.setattr("torch.cuda.device", Device)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: old_and_new[current[-1]] >= (8, 0))
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda device: old_and_new[device.index])
    assert Hardware.of(torch.device("cuda", 0)) == Hardware("cuda", bfloat16=False, float16=True)
    assert Hardware.of(torch.device("cuda", 1)) == Hardware("cuda", bfloat16=True, float16=True)


def test_a_precision_that_the_device_lacks_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Torch only warns, and computes in float32: as a CPU that cannot, or macOS before 14."""
    monkeypatch.setattr("torch.is_autocast_enabled", lambda kind: False)
    with pytest.raises(UserError, match=r"model\.precision: cpu cannot compute in bfloat16"):
        hold(torch.nn.Linear(2, 2), "bfloat16", torch.device("cpu"))


@pytest.fixture(scope="module")
def half_gpt2(words: object) -> GPT2LMHeadModel:
    """Layer norms, biases and learned positions, in bfloat16."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=len(words), n_embd=32, n_layer=3, n_head=2, n_positions=256)  # type: ignore[arg-type]
    return GPT2LMHeadModel(config).eval().to(BF16)


def test_a_bfloat16_network_on_a_cpu_computes_what_float32_does(
    half_gpt2: GPT2LMHeadModel, tiny: LanguageModel, examples: dict[str, tuple[Example, ...]]
) -> None:
    """Its weights are widened for the call, exactly, and given back as they were."""
    network = copy.deepcopy(half_gpt2)
    before = {name: weight.clone() for name, weight in network.state_dict().items()}
    wide = wrap_model(copy.deepcopy(half_gpt2).float(), tiny.tokenizer, ModelConfig(name="wide"))
    with model_kept(network):
        model = wrap_model(network, tiny.tokenizer, ModelConfig(name="half"))
        assert (model.precision, model.stored_dtype) == ("float32", BF16)
        names = ["transformer.h.1.mlp.c_proj.weight"]
        model.freeze_but(names)
        rows = [model.encoder.example(row) for row in examples["forget"]]
        kept = row_set(model, rows)
        assert kept.inputs is not None
        for found, expected in zip(score_rows(model, rows, inputs=kept.inputs), score_rows(wide, rows), strict=True):
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)
    after = network.state_dict()
    assert all(torch.equal(after[name], weight) and after[name].dtype == BF16 for name, weight in before.items())


def test_a_pass_that_starts_at_kept_states_goes_on_in_their_dtype(
    half_gpt2: GPT2LMHeadModel, tiny: LanguageModel, examples: dict[str, tuple[Example, ...]]
) -> None:
    """As on an accelerator, where half-precision weights stay: the residual stream is bfloat16 from the start on."""
    network = copy.deepcopy(half_gpt2)
    model = LanguageModel(network, tiny.tokenizer, tiny.encoder, "bfloat16", stored_dtype=BF16)
    rows = [model.encoder.example(row) for row in examples["forget"][:4]]
    states = BlockStates(model, 2, rows)
    plain = score_rows(model, rows)
    seen: list[torch.dtype] = []
    handle = network.transformer.h[2].register_forward_pre_hook(lambda _, given: seen.append(given[0].dtype))
    found = score_rows(model, rows, inputs=states)
    handle.remove()
    assert set(seen) == {BF16}
    for one, other in zip(found, plain, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-6)
    with started(states, [0]):
        assert states.batch([0]).dtype == F32


def test_float16_that_overflows_is_one_line(tiny: LanguageModel) -> None:
    network = copy.deepcopy(tiny.network)
    with torch.no_grad():
        network.model.layers[0].mlp.down_proj.weight *= 1e6
    with pytest.raises(UserError, match="in float16, whose largest number is 65504; set"):
        LanguageModel(network, tiny.tokenizer, tiny.encoder, "float16")


def test_loading_asks_for_the_plan(tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a machine without bfloat16 a half-precision folder is float32 in memory whatever it is asked to compute in."""
    model = load_model(ModelConfig(name=str(tiny_folder)))
    model.network.to(BF16).save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    for wanted in ("auto", "bfloat16"):
        loaded = load_model(ModelConfig.model_validate({"name": str(tmp_path), "precision": wanted}))
        assert {weight.dtype for weight in loaded.network.parameters()} == {F32}
        assert loaded.stored_dtype == BF16
    monkeypatch.setattr("expunge.models.precision.Hardware.of", lambda device: SimpleNamespace(**vars(MACHINES["MPS"])))
    loaded = load_model(ModelConfig(name=str(tmp_path), precision="bfloat16"))
    assert {weight.dtype for weight in loaded.network.parameters()} == {BF16}
    assert loaded.precision == "bfloat16"


def test_judges_join_a_network_that_was_given_from_python(
    half_gpt2: GPT2LMHeadModel, tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may lie elsewhere than `auto` would put it: on the CPU of a machine with a card, or on the second card."""
    monkeypatch.setattr("expunge.models.load._latest", [torch.device("cuda", 1)])
    wrap_model(copy.deepcopy(half_gpt2), tiny.tokenizer, ModelConfig(name="given"))
    assert helper_device() == torch.device("cpu")


def test_deterministic_kernels_last_as_long_as_a_call(
    half_gpt2: GPT2LMHeadModel, tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operation without such a kernel is named by a warning of torch; cuBLAS is told before its first product."""
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "")
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG")
    network = copy.deepcopy(half_gpt2)
    for wanted in (False, True):
        with lent(network):
            wrap_model(network, tiny.tokenizer, ModelConfig(name="given", deterministic=wanted))
            assert torch.are_deterministic_algorithms_enabled() == wanted
            assert os.environ.get("CUBLAS_WORKSPACE_CONFIG") == (":4096:8" if wanted else None)
        assert not torch.are_deterministic_algorithms_enabled()
