"""Optimizers of adversarial prompts: greedy coordinate gradient for tokens, Adam for input vectors.

`search` is GCG (arXiv:2307.15043, algorithms 1 and 2), `tune` is prompt tuning (arXiv:2104.08691).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from pydantic import Field
from torch import Tensor

from expunge.attacks._objective import Candidates, Goal, soft_loss
from expunge.core.records import Frozen
from expunge.models.base import LanguageModel
from expunge.models.causal_restore import input_embeddings

_CHUNK = 8192
"""Vocabulary entries whose embeddings are scored together."""
_DRAWS = 4
"""Candidates drawn per wanted one, since some are duplicates or change when decoded and encoded."""


class SearchConfig(Frozen):
    """Options of the token search."""

    length: int = Field(12, ge=1, description="Tokens of the adversary's text at the start of the search")
    candidates: int = Field(24, ge=1, description="Candidate texts per step, each with one token replaced")
    top_k: int = Field(64, ge=1, description="Candidate tokens per position: those with the best gradient")
    rows_per_step: int = Field(2, ge=1, description="Rows on which a step compares texts, drawn at each step")


@dataclass(frozen=True)
class SearchStep:
    """State of a search after a step."""

    ids: tuple[int, ...]
    loss: float
    """On the rows of the step."""


class SoftPromptConfig(Frozen):
    """Options of the training of soft prompts."""

    length: int = Field(8, ge=1, description="Vectors before the question")
    lr: float = Field(
        0.1, gt=0, description="Adam's learning rate, relative to the root mean square of an embedding's entries"
    )
    rows_per_step: int = Field(4, ge=1, description="Rows per step, drawn at each step")


def search(
    model: LanguageModel,
    goals: Sequence[Goal],
    start: Sequence[int],
    admitted: Callable[[Sequence[int]], bool],
    config: SearchConfig,
    generator: torch.Generator,
    match: float = 0.0,
) -> Iterator[SearchStep]:
    """Replace one token per step, endlessly; the caller stops.

    A step draws rows, computes the gradient of the loss for every token at every position, draws candidates among the
    best tokens, and keeps the best candidate, or the current text if none is better on these rows.

    Args:
        model: any model, in evaluation mode.
        goals: prompts with slots.
        start: ids in the slots at the beginning.
        admitted: whether ids can be typed, i.e. decoding and encoding reproduces them.
        config: size of the search.
        generator: of all draws.
        match: weight of the distance to the original model's states.
    """
    forbidden = _forbidden(model)
    scorer = Candidates(model, goals, match)
    current = tuple(start)
    while True:
        rows = torch.randperm(len(goals), generator=generator)[: config.rows_per_step].tolist()
        gains = _gains(model, [goals[row] for row in rows], current, match)
        gains[:, forbidden] = -torch.inf
        candidates = [current, *_drawn(gains, current, admitted, config, generator)]
        losses = scorer.losses(rows, candidates)
        best = int(losses.argmin())
        current = candidates[best]
        yield SearchStep(current, float(losses[best]))


def _gains(model: LanguageModel, goals: Sequence[Goal], ids: Sequence[int], match: float) -> Tensor:
    """First-order decrease of the loss for each token at each position: (K, V) on the CPU."""
    base = input_embeddings(model, torch.tensor(ids, device=model.device)).detach().float().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(soft_loss(model, goals, base, match), base)
    with torch.no_grad():
        parts = torch.split(torch.arange(_vocabulary(model), device=model.device), _CHUNK)
        return torch.cat([-slope @ input_embeddings(model, part).float().T for part in parts], dim=1).cpu()


def _drawn(
    gains: Tensor,
    current: tuple[int, ...],
    admitted: Callable[[Sequence[int]], bool],
    config: SearchConfig,
    generator: torch.Generator,
) -> list[tuple[int, ...]]:
    """Distinct admitted texts that differ from the current one at one position."""
    best = gains.topk(min(config.top_k, gains.shape[1]), dim=1).indices
    count = _DRAWS * config.candidates
    places = torch.randint(len(current), (count,), generator=generator).tolist()
    ranks = torch.randint(best.shape[1], (count,), generator=generator).tolist()
    found: dict[tuple[int, ...], None] = {}
    for place, rank in zip(places, ranks, strict=True):
        ids = (*current[:place], int(best[place, rank]), *current[place + 1 :])
        if ids != current and ids not in found and admitted(ids):
            found[ids] = None
        if len(found) == config.candidates:
            break
    return list(found)


def _forbidden(model: LanguageModel) -> Tensor:
    """Ids that cannot be typed: special tokens, and rows of the embedding without a token."""
    tokenizer = model.tokenizer
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    return torch.tensor(sorted({*special, *range(len(tokenizer), _vocabulary(model))}), dtype=torch.long)


def _vocabulary(model: LanguageModel) -> int:
    """Rows of the embedding."""
    base: Any = model.base
    return int(base.get_input_embeddings().weight.shape[0])


def tune(
    model: LanguageModel,
    goals: Sequence[Goal],
    config: SoftPromptConfig,
    generator: torch.Generator,
    match: float = 0.0,
) -> Iterator[Tensor]:
    """The (K, D) vectors after each step, endlessly; the caller stops. The weights of the model do not change.

    Args:
        model: any model, in evaluation mode.
        goals: prompts with slots.
        config: length and learning rate.
        generator: of all draws; the vectors start as embeddings of drawn tokens.
        match: weight of the distance to the original model's states.
    """
    ids = torch.randint(len(model.tokenizer), (config.length,), generator=generator)
    vectors = input_embeddings(model, ids.to(model.device)).detach().float().clone().requires_grad_()
    optimizer = torch.optim.Adam([vectors], lr=config.lr * float(vectors.detach().square().mean().sqrt()))
    while True:
        rows = torch.randperm(len(goals), generator=generator)[: config.rows_per_step].tolist()
        with torch.enable_grad():
            loss = soft_loss(model, [goals[row] for row in rows], vectors, match)
            (vectors.grad,) = torch.autograd.grad(loss, vectors)
        optimizer.step()
        yield vectors.detach().clone()
