"""Rounded weights: by hand, against scipy's quantiles, and back to the bit."""

from __future__ import annotations

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm

from expunge.core.errors import UserError
from expunge.data.encode import Encoded
from expunge.models.adapter import add_lora
from expunge.models.base import LanguageModel
from expunge.models.config import LoraConfig
from expunge.models.forward import score_rows
from expunge.models.quantize import (
    NF4_LEVELS,
    Levels,
    Quantization,
    quantize,
    quantize_absmax,
    quantize_nf4,
    quantized,
)

ROWS = [Encoded((5, 6, 7, 8, 9, 10), 3), Encoded((11, 12, 13), 1)]
EVERY = [
    Quantization(levels=levels, group=group)
    for levels, group in (("int8", None), ("int4", None), ("int4", 32), ("nf4", None))
]


def test_even_steps_by_hand() -> None:
    """3 bits: steps of a third of the largest magnitude, channel by channel; 0.16 * 3 = 0.48 rounds to 0."""
    weight = torch.tensor([[1.0, 0.16, -0.6, 0.4], [0.0, -30.0, 14.0, 4.0], [0.0, 0.0, 0.0, 0.0]])
    expected = torch.tensor([[1.0, 0.0, -2 / 3, 1 / 3], [0.0, -30.0, 10.0, 0.0], [0.0, 0.0, 0.0, 0.0]])
    torch.testing.assert_close(quantize_absmax(weight, 3), expected)


def test_groups_have_scales_of_their_own() -> None:
    """In groups of 2, the 14 and the 4 stand for themselves: 14, and 4 -> 3 * (4 / 14) = 0.86 -> 1 third of 14."""
    weight = torch.tensor([[0.0, -30.0, 14.0, 4.0, 0.7]])
    expected = torch.tensor([[0.0, -30.0, 14.0, 14 / 3, 0.7]])
    torch.testing.assert_close(quantize_absmax(weight, 3, 2), expected)


def test_normal_float_by_hand() -> None:
    """The block's largest magnitude is 2: 0.1 / 2 = 0.05 lies nearer to 0.0796 than to 0, -0.9 / 2 next to -0.3949."""
    found = quantize_nf4(torch.tensor([[2.0, 0.1], [-0.9, 0.0], [7.0, 0.0]]), 4)
    expected = torch.tensor([[2.0, 2 * NF4_LEVELS[8]], [2 * NF4_LEVELS[3], 0.0], [7.0, 0.0]])
    torch.testing.assert_close(found, expected)


def test_the_levels_are_quantiles_of_the_normal_distribution() -> None:
    """The paper's construction: 8 levels above 0 and 7 below, of even probability mass, scaled to end at 1 and -1."""
    offset = 1 - (1 / 32 + 1 / 30) / 2
    above, below = norm.ppf(np.linspace(offset, 0.5, 9)[:-1]), -norm.ppf(np.linspace(offset, 0.5, 8)[:-1])
    levels = np.sort(np.concatenate([above, [0], below]))
    np.testing.assert_allclose(NF4_LEVELS, levels / levels.max(), atol=1e-6)


@pytest.mark.parametrize("how", EVERY, ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_rounding_twice_is_rounding_once(how: Quantization, dtype: torch.dtype) -> None:
    weight = torch.randn(24, 80, generator=torch.Generator().manual_seed(0)).to(dtype)
    once = quantize(weight, how)
    assert once.dtype == dtype
    assert not torch.equal(once, weight)
    torch.testing.assert_close(quantize(once, how), once)


def test_more_levels_and_smaller_groups_err_less() -> None:
    weight = torch.randn(24, 128, generator=torch.Generator().manual_seed(0))
    int8, int4, grouped, nf4 = ((quantize(weight, how) - weight).square().mean() for how in EVERY)
    assert int8 < nf4 < grouped < int4


@pytest.mark.parametrize("how", EVERY, ids=str)
def test_a_model_is_rounded_within_the_block_and_itself_after_it(
    random_model: LanguageModel, how: Quantization
) -> None:
    before = random_model.fingerprint()
    clean = torch.cat(score_rows(random_model, ROWS))
    embedding = random_model.base.get_input_embeddings().weight.clone()  # type: ignore[no-untyped-call]
    with quantized(random_model, how):
        assert random_model.fingerprint() != before
        assert not torch.equal(torch.cat(score_rows(random_model, ROWS)), clean)
        assert torch.equal(random_model.base.get_input_embeddings().weight, embedding)  # type: ignore[no-untyped-call]
    assert random_model.fingerprint() == before
    assert torch.equal(torch.cat(score_rows(random_model, ROWS)), clean)


def test_an_error_inside_restores_the_weights_too(tiny: LanguageModel) -> None:
    before = tiny.fingerprint()
    with pytest.raises(RuntimeError, match="stop"), quantized(tiny, Quantization()):
        raise RuntimeError("stop")
    assert tiny.fingerprint() == before


def test_an_adapter_is_rounded_together_with_what_it_adapts(tiny: LanguageModel) -> None:
    """With int8 the merged model says almost what the adapted one does, not what the bare one does."""
    bare = torch.cat(score_rows(tiny, ROWS))
    add_lora(tiny, [name for name, _ in tiny.network.named_parameters()], LoraConfig(), 0)
    with torch.no_grad():
        for name, parameter in tiny.network.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.03, generator=torch.Generator().manual_seed(0))
    before = tiny.fingerprint()
    adapted = torch.cat(score_rows(tiny, ROWS))
    with quantized(tiny, Quantization(levels="int8")):
        rounded = torch.cat(score_rows(tiny, ROWS))
    assert 0 < (rounded - adapted).abs().max() < 0.2 * (bare - adapted).abs().max()
    assert tiny.fingerprint() == before
    assert torch.equal(torch.cat(score_rows(tiny, ROWS)), adapted)


@pytest.mark.skipif(find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed")
@pytest.mark.parametrize(("levels", "bound"), [("nf4", 1e-6), ("int8", 1 / 127)])
def test_bitsandbytes_rounds_alike(levels: Levels, bound: float) -> None:
    """Their kernels and our arithmetic agree: nf4 to the bit; int8 starts from half precision, where a tie may turn."""
    weight = torch.randn(64, 128, generator=torch.Generator().manual_seed(0))
    theirs = quantize(weight, Quantization(levels=levels, group=None, library="bitsandbytes"))
    ours = quantize(weight, Quantization(levels=levels, group=None))
    assert (theirs - ours).abs().max() <= 1.01 * bound * weight.abs().max()
    assert (theirs - ours).abs().mean() < 1e-3 * weight.abs().mean()


def test_a_library_that_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """One line that says what to install."""
    monkeypatch.setattr("expunge.models.quantize.find_spec", lambda name: None)
    with pytest.raises(UserError, match="pip install bitsandbytes"):
        quantize(torch.ones(2, 2), Quantization(levels="nf4", group=None, library="bitsandbytes"))


@pytest.mark.parametrize("how", [{"levels": "int4", "group": None}, {"levels": "int8", "group": 64}])
def test_what_a_library_does_not_offer_is_refused(how: dict[str, Any]) -> None:
    """bitsandbytes knows nf4, and int8 by channel."""
    with pytest.raises(ValueError, match="bitsandbytes has no"):
        Quantization(library="bitsandbytes", **how)
