"""Losses, combination rules and localizers beside frozen bfloat16 weights, as on CUDA: trained ones are float32."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from tiny_llama import tiny_llama
from transformers import LlamaForCausalLM, PreTrainedTokenizerFast

from expunge.combine.base import Combine, Step
from expunge.core.plugins import find, names
from expunge.data.batch import Batch, collate
from expunge.data.encode import Encoder
from expunge.data.example import Example
from expunge.data.splits import Splits
from expunge.localize.base import Localizer
from expunge.losses.base import Loss, Setup, TuningConfig
from expunge.models.base import LanguageModel
from expunge.models.forward import Forward, RowSet, row_set
from expunge.models.reference_weights import OriginalWeights
from expunge.models.self_check import choose_caching
from expunge.retain.nll import NLL

Examples = dict[str, tuple[Example, ...]]
FILLERS = [(slot, name) for slot in ("forget", "retain") for name in names(slot) if name != "none"]
TRAINED = ("model.layers.1.mlp.down_proj.weight", "model.layers.1.self_attn.o_proj.weight")


@dataclass(frozen=True)
class Subject:
    """A filler beside a model whose trained weights have moved since the reference was taken."""

    filler: Loss
    model: LanguageModel
    rows: RowSet

    def batch(self, indices: Sequence[int]) -> Batch:
        return collate([self.rows.sequences[index] for index in indices], indices)

    def loss(self, batch: Batch) -> torch.Tensor:
        return self.filler.loss(Forward(self.model, batch, self.rows))

    def gradient(self) -> torch.Tensor:
        matrix = self.model.network.get_parameter(TRAINED[0])
        (found,) = torch.autograd.grad(self.loss(self.batch(range(3))), matrix)
        return found


@pytest.fixture(scope="module")
def half(words: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    return (
        tiny_llama(words, intermediate_size=48, initializer_range=0.2, eos_token_id=2, pad_token_id=None)
        .eval()
        .to(torch.bfloat16)
    )


def subject_of(
    slot: str, name: str, network: LlamaForCausalLM, words: PreTrainedTokenizerFast, examples: Examples
) -> Subject:
    """With the network's own dtype: bfloat16 is multiplied under autocast."""
    precision = "bfloat16" if network.dtype == torch.bfloat16 else "float32"
    model = LanguageModel(network, words, Encoder(words), precision, stored_dtype=torch.bfloat16)
    model.caching = choose_caching(model)
    model.freeze_but(TRAINED)
    kind: type[Loss] = find(slot, name, Loss)
    filler = kind(kind.Config())
    rows = examples["forget"][:3]
    sequences = [model.encoder.example(row) for row in rows]
    filler.prepare(Setup(model, rows, sequences, "0/forget", 1, examples["retain"], tune=_tuned))
    kept = row_set(model, sequences, filler.needs)
    filler.start(model, lambda _, change: change)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in model.trainable():
            weight += 0.05 * torch.randn(weight.shape, generator=generator)
    return Subject(filler, model, kept)


def _tuned(setup: Setup, config: TuningConfig) -> OriginalWeights:
    """Weights a little off in place of fine-tuned ones."""
    generator = torch.Generator().manual_seed(2)
    moved = [one + 0.1 * torch.randn(one.shape, generator=generator) for one in setup.model.trainable()]
    return OriginalWeights(setup.model, moved)


@pytest.mark.parametrize(("slot", "name"), FILLERS)
def test_a_loss_beside_frozen_bfloat16_weights_is_that_of_float32(
    slot: str, name: str, half: LlamaForCausalLM, words: PreTrainedTokenizerFast, examples: Examples
) -> None:
    subject = subject_of(slot, name, copy.deepcopy(half), words, examples)
    dtypes = {key: weight.dtype for key, weight in subject.model.network.named_parameters()}
    assert {key for key, dtype in dtypes.items() if dtype == torch.float32} == set(TRAINED)
    loss = subject.loss(subject.batch(range(3)))
    assert (loss.shape, loss.dtype) == ((), torch.float32)
    assert loss.abs() > 0

    gradient = subject.gradient()
    assert gradient.dtype == torch.float32
    wide = subject_of(slot, name, copy.deepcopy(half).float(), words, examples)
    expected = wide.gradient()
    if not subject.filler.whole_epochs and name != "belief_sequence":  # samples differ with the last bits
        torch.testing.assert_close(loss, wide.loss(wide.batch(range(3))), rtol=0.05, atol=0.02)
        one, other = (found.flatten() / found.norm() for found in (gradient, expected))
        assert one @ other > 0.97

    apart = torch.stack([subject.loss(subject.batch([row])) for row in range(3)]).mean()
    torch.testing.assert_close(apart, loss, rtol=0.02, atol=0.01)
    assert torch.equal(subject.loss(subject.batch(range(3))), loss)


def changed_by(
    name: str, network: LlamaForCausalLM, words: PreTrainedTokenizerFast, examples: Examples
) -> torch.Tensor:
    """Trained weights after one step of a rule on gradient ascent and NLL, less what they were before."""
    forget = subject_of("forget", "gradient_ascent", network, words, examples)
    model, rows = forget.model, examples["retain"]
    sequences = [model.encoder.example(row) for row in rows]
    rule = find("combine", name, Combine)
    combine = rule(rule.Config())
    combine.prepare(Setup(model, rows, sequences, "0/retain", 1))
    retain = Subject(NLL(NLL.Config()), model, row_set(model, sequences))
    weights = model.trainable()
    before = [weight.detach().clone() for weight in weights]
    optimizer = combine.optimizer(weights, 1e-3, 0.0) or torch.optim.SGD(weights, 1e-3)
    losses = [lambda one=one: one.loss(one.batch(range(3))) for one in (forget, retain)]
    combine.accumulate(Step(*losses, lambda loss: loss.backward(), weights))
    optimizer.step()
    return torch.cat([(weight.detach() - old).flatten() for weight, old in zip(weights, before, strict=True)])


@pytest.mark.parametrize("name", names("combine"))
def test_a_step_beside_frozen_bfloat16_weights_is_that_of_float32(
    name: str, half: LlamaForCausalLM, words: PreTrainedTokenizerFast, examples: Examples
) -> None:
    """bfloat16 rounds by up to 1/256, which moves a step by less than 1% after a few products.

    Adam's first step consists of the gradient's signs, and rounding turns those of its smallest entries.
    """
    found = changed_by(name, copy.deepcopy(half), words, examples)
    expected = changed_by(name, copy.deepcopy(half).float(), words, examples)
    assert found.dtype == torch.float32
    assert found.norm() == pytest.approx(expected.norm().item(), rel=0.01)
    assert torch.cosine_similarity(found, expected, dim=0) > (0.98 if name == "null_space" else 0.999)


@pytest.mark.parametrize("name", names("localize"))
def test_a_localizer_chooses_from_bfloat16_weights_as_from_float32(
    name: str, half: LlamaForCausalLM, words: PreTrainedTokenizerFast, examples: Examples
) -> None:
    options = {
        "causal_tracing": {"facts": 4, "min_probability": 0, "min_effect": -1, "window": 1},
        "mutual_information": {"components": 1, "window": 1},
        "layers": {"layers": [1]},
    }
    kind = find("localize", name, Localizer)
    localizer = kind(kind.Config.model_validate(options.get(name, {})))
    splits = Splits((*examples["forget"], *examples["neighbour"]), examples["retain"])
    found, expected = (
        localizer.select(LanguageModel(network, words, Encoder(words), precision), splits, 0)
        for network, precision in ((half, "bfloat16"), (copy.deepcopy(half).float(), "float32"))
    )
    assert found.names == expected.names
    for one, other in zip(found.curves, expected.curves, strict=True):
        moved = max(abs(a - b) for a, b in zip(one.values, other.values, strict=True))
        assert moved < (max(other.values) - min(other.values)) / 2, "the choice between two blocks is no accident"
