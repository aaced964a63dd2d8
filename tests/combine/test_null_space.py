"""The null-space rule on a real matrix of the tiny model, in float64, whose inputs fill half of their space.

The value matrix of block 0 is cut to half its rank within each head, so that the inputs of the output matrix above it
lie in 48 of 96 directions, which are no coordinate axes: elementwise arithmetic leads out of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear
from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerBase

from expunge.combine import _inputs
from expunge.combine._inputs import distinct_tokens, fitting, second_moments, trained_matrices
from expunge.combine.base import Step
from expunge.combine.null_space import NullSpace
from expunge.core.errors import UserError
from expunge.data.batch import collate
from expunge.data.encode import Encoded
from expunge.data.example import Example
from expunge.forget.deviation import Deviation
from expunge.losses.base import Setup
from expunge.models.adapter import add_lora
from expunge.models.base import LanguageModel
from expunge.models.config import LoraConfig, ModelConfig
from expunge.models.load import load_model, wrap_model
from expunge.models.partial import block_output

WIDTH, HEADS = 96, 2


def randn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def train_only(model: LanguageModel, *names: str) -> None:
    """As `freeze_but`, in whatever dtype the weights are."""
    for name, parameter in model.network.named_parameters():
        parameter.requires_grad_(name in names)


def inputs_of(model: LanguageModel, module: nn.Module, rows: Sequence[Encoded]) -> list[Tensor]:
    """(T, d) inputs of a module for each row, one row at a time."""
    seen: list[Tensor] = []
    handle = module.register_forward_pre_hook(lambda _, args: seen.append(args[0][0]))
    with torch.no_grad(), model.evaluating():
        for row in rows:
            block_output(model, collate([row], [0]), len(model.blocks()) - 1)
    handle.remove()
    return seen


@dataclass
class Bench:
    """The model with the one matrix that is trained, and the inputs that retain rows give it."""

    model: LanguageModel
    setup: Setup
    weight: nn.Parameter
    inputs: Tensor
    """(N, 96), of rank 48."""

    def rule(self, **options: Any) -> NullSpace:
        rule = NullSpace(NullSpace.Config.model_validate({"energy": 0, "retain_weight": 0, "clip": 0, **options}))
        rule.prepare(self.setup)
        return rule

    def train(self, rule: NullSpace, steps: int, weight_decay: float = 0.0, lr: float = 1e-3) -> Tensor:
        """The change of the matrix by Adam steps on a regression: forget inputs are random, retain ones the rows'."""
        before = self.weight.detach().clone()
        optimizer = rule.optimizer([self.weight], lr, weight_decay) or torch.optim.Adam([self.weight], lr)
        for _ in range(steps):
            rule.accumulate(self.step())
            optimizer.step()
            optimizer.zero_grad()
        return self.weight.detach() - before

    def step(self, part: slice = slice(None), **options: Any) -> Step:
        forget, target = randn(8, WIDTH, seed=1)[part], randn(8, WIDTH, seed=2)[part]
        return Step(
            forget=lambda: (linear(forget, self.weight) - target).square().mean(),
            retain=lambda: (linear(self.inputs[:40][part], self.weight) - 1).square().mean(),
            backward=lambda loss: (loss * options.get("scale", 1)).backward(),
            parameters=[self.weight],
            **options,
        )

    def leak(self, change: Tensor) -> float:
        """What the change does to retain inputs, relative to both."""
        return float((self.inputs @ change.T).norm() / (self.inputs.norm() * change.norm()))


@pytest.fixture(scope="module")
def halved(tiny_folder: Path, examples: dict[str, tuple[Example, ...]]) -> Bench:
    model = load_model(ModelConfig(name=str(tiny_folder), precision="float32"))
    model.network.double()
    attention = model.blocks()[0][1].self_attn
    values = attention.v_proj.weight.data
    size = len(values) // HEADS
    for head in range(HEADS):
        half = torch.linalg.qr(randn(size, size // 2, seed=head)).Q
        part = slice(head * size, (head + 1) * size)
        values[part] = half @ half.T @ values[part]
    rows = examples["retain"]
    sequences = [model.encoder.example(row) for row in rows]
    inputs = torch.cat(inputs_of(model, attention.o_proj, sequences))
    return Bench(model, Setup(model, rows, sequences, "0/retain", 1), attention.o_proj.weight, inputs)


@pytest.fixture
def bench(halved: Bench) -> Iterator[Bench]:
    """The same as it was before any test."""
    original = halved.weight.detach().clone()
    train_only(halved.model, f"{halved.model.blocks()[0][0]}.self_attn.o_proj.weight")
    yield halved
    halved.weight.data.copy_(original)
    halved.weight.grad = None


@pytest.mark.parametrize("mode", ["update", "reparam"])
@pytest.mark.parametrize("weight_decay", [0.0, 10.0])
def test_steps_leave_what_retain_inputs_give(bench: Bench, mode: str, weight_decay: float) -> None:
    rule = bench.rule(mode=mode)
    change = bench.train(rule, 20, weight_decay)
    assert change.norm() > 0.01 * bench.weight.norm()
    assert bench.leak(change) < 1e-12
    assert rule.logs["null_space_share"] == 0.5


def test_projecting_the_gradient_alone_leaks_through_adam(bench: Bench) -> None:
    assert bench.leak(bench.train(bench.rule(mode="grad"), 20)) > 1e-3
    sgd_like = bench.rule(mode="grad")
    sgd_like.accumulate(bench.step())
    assert bench.weight.grad is not None
    assert bench.leak(bench.weight.grad) < 1e-12


@pytest.mark.parametrize("mode", ["update", "grad", "reparam"])
def test_with_every_direction_free_it_is_plain_adam(bench: Bench, mode: str) -> None:
    before = bench.weight.detach().clone()
    change = bench.train(bench.rule(mode=mode, energy=1), 5)
    bench.weight.data.copy_(before)
    optimizer = torch.optim.Adam([bench.weight], 1e-3)
    for _ in range(5):
        optimizer.zero_grad()
        bench.step().forget().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    torch.testing.assert_close(change, bench.weight.detach() - before, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("mode", ["update", "reparam"])
def test_both_losses_have_moments_of_their_own(bench: Bench, mode: str) -> None:
    """Against two of torch's, each on a copy of the matrix: what both did is added up; the second has half the rate."""
    before = bench.weight.detach().clone()
    change = bench.train(bench.rule(mode=mode, energy=1, retain_weight=0.5), 3)
    copies = [nn.Parameter(before.clone()) for _ in range(2)]
    adams = [torch.optim.Adam([copy], rate) for copy, rate in zip(copies, (1e-3, 5e-4), strict=True)]
    for _ in range(3):
        bench.weight.data = before + sum(copy.detach() - before for copy in copies)
        step = bench.step()
        for copy, loss in zip(copies, (step.forget, step.retain), strict=True):
            (copy.grad,) = torch.autograd.grad(loss(), bench.weight)
        for adam in adams:
            adam.step()
    torch.testing.assert_close(change, sum(copy.detach() - before for copy in copies), rtol=1e-9, atol=1e-12)


def test_decay_pulls_towards_the_original_weights(bench: Bench) -> None:
    """Without gradients: after a change within the projection, a step of rate 0.1 and decay 2 keeps 80% of it."""
    for mode in ("update", "reparam"):
        rule = bench.rule(mode=mode)
        before = bench.weight.detach().clone()
        optimizer = rule.optimizer([bench.weight], 0.1, 2.0)
        assert optimizer is not None
        change = rule.project(bench.weight, randn(WIDTH, WIDTH, seed=3))
        bench.weight.data += change
        optimizer.step()
        torch.testing.assert_close(bench.weight.detach() - before, 0.8 * change)
        bench.weight.data.copy_(before)


def test_the_projected_gradient_is_orthogonal_to_the_retain_gradient(bench: Bench) -> None:
    rule = bench.rule(retain_weight=1)
    rule.accumulate(bench.step())
    assert abs(rule.logs["gradient_cosine"]) > 1e-3
    assert abs(rule.logs["projected_gradient_cosine"]) < 1e-12
    assert rule.logs["displacement"] == 0
    bench.weight.data *= 1.25
    rule.accumulate(bench.step())
    assert rule.logs["displacement"] == pytest.approx(0.25)


@pytest.mark.parametrize("mode", ["update", "grad", "reparam"])
def test_micro_batches_add_up_to_the_batch(bench: Bench, mode: str) -> None:
    """Two halves, each counting 1/2, against the whole: same weights after a step, also of the one after it."""
    before = bench.weight.detach().clone()
    changes = []
    for halves in (False, True):
        bench.weight.data.copy_(before)
        rule = bench.rule(mode=mode, retain_weight=0.5, clip=0.01)
        optimizer = rule.optimizer([bench.weight], 1e-3, 0.0) or torch.optim.Adam([bench.weight], 1e-3)
        for _ in range(2):
            if halves:
                rule.accumulate(bench.step(slice(0, None, 2), scale=0.5, is_last=False))
                assert not rule.logs
                rule.accumulate(bench.step(slice(1, None, 2), scale=0.5))
            else:
                rule.accumulate(bench.step())
            optimizer.step()
            optimizer.zero_grad()
        changes.append(bench.weight.detach() - before)
    torch.testing.assert_close(changes[1], changes[0], rtol=1e-6, atol=1e-9)


def test_each_gradient_is_clipped_on_its_own(bench: Bench) -> None:
    """Mode grad with all free: norms are far above 1e-3, so that .grad is 1e-3 times the sum of two directions."""
    forget, retain = (
        torch.autograd.grad(loss(), bench.weight)[0] for loss in (bench.step().forget, bench.step().retain)
    )
    assert min(forget.norm(), retain.norm()) > 1e-2
    bench.rule(mode="grad", energy=1, retain_weight=2, clip=1e-3).accumulate(bench.step())
    assert bench.weight.grad is not None
    torch.testing.assert_close(bench.weight.grad, 1e-3 * (forget / forget.norm() + 2 * retain / retain.norm()))


def test_a_retain_loss_of_weight_zero_is_never_computed(bench: Bench) -> None:
    def refuse() -> Tensor:
        raise AssertionError("computed")

    rule = bench.rule()
    step = bench.step()
    losses = rule.accumulate(Step(step.forget, refuse, step.backward, step.parameters))
    assert losses.retain is None
    assert bench.weight.grad is None
    assert "gradient_cosine" not in rule.logs


def test_the_kick_of_the_deviation_loss_stays_within(bench: Bench) -> None:
    rule, before = bench.rule(), bench.weight.detach().clone()
    loss = Deviation(Deviation.Config())
    loss.prepare(bench.setup)
    loss.start(bench.model, rule.project)
    change = bench.weight.detach() - before
    assert change.norm().item() == pytest.approx(1e-3 * before.norm().item())
    assert bench.leak(change) < 1e-12


def test_moments_are_those_of_the_rows_one_by_one(
    tiny: LanguageModel, examples: dict[str, tuple[Example, ...]]
) -> None:
    """Whatever the padding; without position 0; and matrices with one input share one tensor."""
    block = tiny.blocks()[1][1].mlp
    train_only(tiny, *(f"{tiny.blocks()[1][0]}.mlp.{name}_proj.weight" for name in ("gate", "up", "down")))
    rows = [tiny.encoder.example(row) for row in examples["retain"][:5]]
    for normalise in (False, True):
        found = second_moments(tiny, trained_matrices(tiny), rows, skip_first=True, normalise=normalise)
        assert found[block.gate_proj.weight] is found[block.up_proj.weight]
        for module in (block.up_proj, block.down_proj):
            inputs = torch.cat([states[1:] for states in inputs_of(tiny, module, rows)]).double()
            if normalise:
                inputs = inputs / inputs.norm(dim=1, keepdim=True)
            wanted = inputs.T @ inputs / len(inputs)
            torch.testing.assert_close(
                found[module.weight].means[0], wanted, rtol=1e-4, atol=1e-5 * wanted.max().item()
            )


def test_an_opening_that_all_rows_share_is_counted_once() -> None:
    """Rows 1 2 3 | 4 5 and 1 2 6 | 7 share 1 2: own tokens 3 + 2, opening 2, of which position 0 may be left out."""
    rows = [Encoded((1, 2, 3, 4, 5), 3), Encoded((1, 2, 6, 7), 3)]
    assert distinct_tokens(rows, skip_first=False) == 7
    assert distinct_tokens(rows, skip_first=True) == 6
    assert distinct_tokens(rows[:1], skip_first=True) == 4


def test_gpt2_keeps_its_weights_the_other_way_round(tokenizer: PreTrainedTokenizerBase) -> None:
    """The second feed-forward matrix is (64, 16) there, and comes with a bias, which only the retain loss may move."""
    torch.manual_seed(0)
    config = GPT2Config(vocab_size=128, n_embd=16, n_inner=64, n_layer=2, n_head=2, n_positions=64)
    model = wrap_model(GPT2LMHeadModel(config), tokenizer, ModelConfig(name="random", precision="float32"))
    names = [f"{model.blocks()[1][0]}.mlp.c_proj.{name}" for name in ("weight", "bias")]
    model.freeze_but(names)
    ids = torch.randint(128, (20, 40), generator=torch.Generator().manual_seed(0)).tolist()
    rows = [Encoded(tuple(row), 5) for row in ids]
    rule = NullSpace(NullSpace.Config(energy=0.1))
    rule.prepare(Setup(model, [], rows, "0/retain", 1))
    module = model.blocks()[1][1].mlp.c_proj
    change = randn(64, 16, seed=0).float()
    inputs = torch.cat([states[1:] for states in inputs_of(model, module, rows)])
    allowed = rule.project(module.weight, change)
    assert allowed.shape == change.shape
    assert 0 < (inputs @ allowed).norm() < 0.5 * (inputs @ change).norm()
    assert not rule.project(module.bias, torch.ones(16)).any()


def refused(bench: Bench, **options: Any) -> str:
    with pytest.raises(UserError) as error:
        bench.rule(**options)
    return str(error.value)


def test_other_weights_than_matrices_of_the_blocks_are_refused(bench: Bench) -> None:
    everything = [name for name, _ in bench.model.network.named_parameters()]
    train_only(bench.model, *everything)
    message = refused(bench)
    assert "embed_tokens" in message
    assert "localize.modules" in message
    train_only(bench.model, "model.norm.weight")
    assert "model.norm.weight" in refused(bench)


def test_an_adapter_is_refused(tiny: LanguageModel) -> None:
    add_lora(tiny, [f"{tiny.blocks()[0][0]}.self_attn.o_proj.weight"], LoraConfig(r=2), 0)
    with pytest.raises(UserError, match=r"model\.adapter"):
        trained_matrices(tiny)


def test_fewer_tokens_than_inputs_are_refused_and_few_are_warned_of(bench: Bench) -> None:
    rows = bench.setup.sequences
    whole = bench.rule()
    assert len(whole.warnings) == (distinct_tokens(rows, True) < 10 * WIDTH)
    some = bench.rule(retain_fraction=0.4)
    assert "retain tokens for 96 inputs" in some.warnings[0]
    message = refused(bench, retain_fraction=0.1)
    assert "at least 96 retain tokens" in message
    assert "960 tokens" in message


def test_a_sample_of_the_retain_rows_is_the_seeds(bench: Bench) -> None:
    change = randn(WIDTH, WIDTH, seed=4)

    def projected(seed: str) -> Tensor:
        rule = NullSpace(NullSpace.Config(retain_fraction=0.5))
        rule.prepare(Setup(bench.model, bench.setup.rows, bench.setup.sequences, seed, 1))
        return rule.project(bench.weight, change)

    assert torch.equal(projected("0/retain"), projected("0/retain"))
    assert not torch.equal(projected("0/retain"), projected("1/retain"))


def test_what_does_not_fit_at_once_is_found_in_turn(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for one matrix of 96 inputs, four are looked at one after another: the same projections to the bit."""
    attention = bench.model.blocks()[0][1].self_attn
    four = [attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight, bench.weight]
    for weight in four:
        weight.requires_grad_(True)
    changes = [randn(*weight.shape, seed=place) for place, weight in enumerate(four)]
    together = [bench.rule(energy=0.2).project(*pair) for pair in zip(four, changes, strict=True)]
    device = torch.device("cpu")
    matrices = trained_matrices(bench.model)
    assert [len(group) for group in fitting(matrices, device)] == [4]
    for room, sizes in ((2.1, [2, 2]), (0.1, [1, 1, 1, 1])):
        monkeypatch.setattr(_inputs, "free_memory", lambda _, room=room: 2 * 8 * WIDTH**2 * room)
        assert [len(group) for group in fitting(matrices, device)] == sizes
        apart = [bench.rule(energy=0.2).project(*pair) for pair in zip(four, changes, strict=True)]
        assert all(map(torch.equal, together, apart))


def test_no_free_direction_is_refused(bench: Bench) -> None:
    down = bench.model.blocks()[0][1].mlp.down_proj
    train_only(bench.model, f"{bench.model.blocks()[0][0]}.mlp.down_proj.weight")
    assert down.weight.requires_grad
    assert "combine.energy" in refused(bench)
