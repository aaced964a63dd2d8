"""Batches fit into memory: estimates, and what happens when an allocation fails."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from expunge.combine._inputs import second_moments
from expunge.core.memory import MemoryExhausted
from expunge.data.encode import Encoded
from expunge.data.example import Example
from expunge.diagnose._noise import profile
from expunge.evaluate.config import EvaluateConfig
from expunge.evaluate.evidence import collect_sets
from expunge.evaluate.evidence_plan import Ask
from expunge.models.base import LanguageModel
from expunge.models.batches import TOKENS, Budget, in_batches
from expunge.models.block_outputs import label_states
from expunge.models.causal_restore import CausalRestorer
from expunge.models.continuations import continued
from expunge.models.entanglement import gradient_cosines
from expunge.models.forward import Needs, row_set, score_rows
from expunge.models.matrices import block_matrices
from expunge.models.module_names import parameter_names
from expunge.models.tensor_store import StateMemory
from expunge.train.squeeze import initial_neighbours, token_level

CPU, GPU = torch.device("cpu"), torch.device("cuda")
CONFIG = SimpleNamespace(hidden_size=64, intermediate_size=128, num_hidden_layers=2, vocab_size=1000)


@contextmanager
def at_most(model: LanguageModel, num_tokens: int) -> Iterator[list[int]]:
    """Within this block a pass over more padded tokens runs out of memory; gives the sizes that were tried."""
    tried: list[int] = []

    def refuse(module: Any, args: Any, kwargs: dict[str, Any]) -> None:
        given = args[0] if args else kwargs["input_ids"]  # hidden states, or ids
        tried.append(given.shape[0] * given.shape[1])
        if tried[-1] > num_tokens:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    modules = (model.decoder, model.blocks()[-1][1])
    hooks = [module.register_forward_pre_hook(refuse, with_kwargs=True) for module in modules]
    try:
        yield tried
    finally:
        for hook in hooks:
            hook.remove()


def _items(model: LanguageModel, rows: tuple[Example, ...]) -> list[Any]:
    needs = frozenset({"answer", "greedy", "samples", "moments"})
    ask = Ask(rows, "forget", needs, EvaluateConfig(samples=3, max_new_tokens=6))  # type: ignore[arg-type]
    return [
        (item.greedy, item.samples, [round(value, 4) for value in item.answer.logp])  # type: ignore[union-attr]
        for item in collect_sets(model, {"forget": ask}, 0)["forget"]
    ]


def _encoded(model: LanguageModel, rows: tuple[Example, ...]) -> list[Encoded]:
    return [model.encoder.example(row) for row in rows]


def _cosines(model: LanguageModel, rows: tuple[Example, ...]) -> list[Any]:
    groups = [[name for name in parameter_names(model, [layer], ())] for layer in range(3)]
    half = len(rows) // 2
    return [torch.tensor(gradient_cosines(model, _encoded(model, rows[:half]), _encoded(model, rows[half:]), groups))]


def _moments(model: LanguageModel, rows: tuple[Example, ...]) -> list[Any]:
    matrices = [block_matrices(model)[name] for name in parameter_names(model, [2], ("mlp.down_proj", "mlp.up_proj"))]
    model.freeze_but([matrix.name for matrix in matrices])
    found = second_moments(model, matrices, _encoded(model, rows), skip_first=True, normalise=False)
    model.network.requires_grad_(False)
    return [torch.stack(found[matrix.weight].means) for matrix in matrices]


def _squeezed(model: LanguageModel, rows: tuple[Example, ...]) -> list[Any]:
    near = initial_neighbours(model, _encoded(model, rows), 3)
    return [near[0], *(torch.tensor(values) for values in token_level(model, _encoded(model, rows), near, 3).values())]


def _noised(model: LanguageModel, rows: tuple[Example, ...]) -> list[Any]:
    found = profile(model, rows, 0, "all", torch.nn.functional.normalize(torch.ones(model.layout.width), dim=0), [0.1])
    return [torch.tensor(found.mean_norm), torch.tensor(found.through), torch.tensor(found.local)]


def _traced(model: LanguageModel, rows: tuple[Example, ...]) -> list[Any]:
    row = _encoded(model, rows)[0]
    noise = torch.randn(300 // len(row.ids) - 1, 1, model.layout.width, generator=torch.Generator().manual_seed(0))
    found = CausalRestorer(model).trace(row.ids, row.places, [2], [2, 3], noise)
    return [torch.tensor((found.clean, found.corrupted, *found.restored))]


WORK: dict[str, Callable[[LanguageModel, tuple[Example, ...]], Any]] = {
    "log-probabilities": lambda model, rows: score_rows(model, [model.encoder.example(row) for row in rows]),
    "states": lambda model, rows: list(label_states(model, [model.encoder.example(row) for row in rows])),
    "continuations": lambda model, rows: continued(model, [model.encoder.asked(row) for row in rows], 4),
    "evaluation": _items,
    "gradients": _cosines,
    "second moments": _moments,
    "squeezing": _squeezed,
    "noise": _noised,
    "tracing": _traced,
}


@pytest.mark.parametrize("name", WORK)
def test_half_the_batch_gives_the_same(
    tiny: LanguageModel, examples: dict[str, tuple[Example, ...]], name: str
) -> None:
    """Many rows at once do not fit; results are those of one large batch, and the smaller budget stays."""
    rows, work = examples["retain"], WORK[name]
    wanted = work(tiny, rows)
    assert tiny.budget.halvings == 0
    before = tiny.budget.tokens("generate", CPU)
    with at_most(tiny, 300) as tried:
        found = work(tiny, rows)
    assert max(tried) > 300
    assert tiny.budget.halvings > 0
    assert tiny.budget.tokens("generate", CPU) == before >> tiny.budget.halvings
    for one, other in zip(found, wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5) if torch.is_tensor(one) else _same(one, other)
    with at_most(tiny, 300) as tried:
        work(tiny, rows)
    assert max(tried) <= 300  # nothing fails a second time


def _same(one: Any, other: Any) -> None:
    if isinstance(one, tuple):
        *texts, logp = one
        assert texts == list(other[:-1])
        assert logp == pytest.approx(other[-1], abs=2e-4)
    else:
        assert one == other


def test_what_does_not_fit_alone_is_one_line(tiny: LanguageModel, examples: dict[str, tuple[Example, ...]]) -> None:
    rows = [tiny.encoder.example(row) for row in examples["forget"]]
    with at_most(tiny, 4), pytest.raises(MemoryExhausted, match=r"one sequence of \d+ tokens does not fit on cpu"):
        score_rows(tiny, rows)


def test_other_errors_are_not_tried_again(tiny: LanguageModel) -> None:
    calls = []

    def work(places: list[int], _: int) -> None:
        calls.append(places)
        raise RuntimeError("shape mismatch")

    with pytest.raises(RuntimeError, match="shape mismatch"):
        in_batches(tiny.budget, CPU, "score", [1, 2], work)
    assert calls == [[1, 0]]


def test_budgets_follow_free_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """A token of `score` takes 4 (8 * 64 + 3 * 128) + 12 * 1000 = 15,584 bytes by estimate; half the memory may go."""
    budget = Budget(CONFIG)
    assert budget.bytes_per_token("score") == 15_584
    free = 1e12
    monkeypatch.setattr("expunge.models.batches.free_memory", lambda device: free)
    assert budget.tokens("score", CPU) == TOKENS["score"] == 4096
    assert budget.tokens("score", GPU) == 4 * 4096
    assert budget.tokens("score", GPU, most=100) == 100
    free = 2 * 15_584 * 2.5 * 4096  # room for two and a half times as many
    assert budget.tokens("score", GPU) == 2 * 4096
    free = 2 * 15_584 * 1000.0
    assert budget.tokens("score", CPU) == budget.tokens("score", GPU) == 512  # the largest halving below 1000
    free = 0.0
    assert budget.tokens("score", GPU) == 64  # an estimate alone never goes further
    assert budget.halve(64, "score", GPU) == 32


def test_cached_reference_states_stay_within_the_bound(
    tiny: LanguageModel, examples: dict[str, tuple[Example, ...]]
) -> None:
    """The states behind a KL to the original model are kept on the CPU, beyond the bound in a file."""
    rows = [tiny.encoder.example(row) for row in examples["retain"]]
    wanted = row_set(tiny, rows, Needs(reference_logits=True)).reference
    bound = tiny.state_memory.used // 2
    tiny.state_memory = StateMemory(bound)
    kept = row_set(tiny, rows, Needs(reference_logits=True)).reference
    assert 0 < tiny.state_memory.used <= bound
    assert wanted is not None
    assert kept is not None
    assert torch.equal(kept.logits([3, 1]), wanted.logits([3, 1]))


def test_states_of_all_blocks_stay_within_a_bound(
    tiny: LanguageModel, examples: dict[str, tuple[Example, ...]]
) -> None:
    rows = [tiny.encoder.example(row) for row in examples["retain"]]
    free = label_states(tiny, rows)
    memory = StateMemory(tiny.state_memory.used // 2)
    bound = label_states(tiny, rows, memory=memory)
    assert 0 < memory.used <= memory.bound
    for index, (one, other) in enumerate(zip(free, bound, strict=True)):
        assert torch.equal(one, other)
        assert torch.equal(bound.part(index, 1), one[1])
