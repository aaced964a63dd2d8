"""GCG: tokens found by trying those that the gradient of the loss points to (arXiv:2307.15043, algorithms 1 and 2)."""

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
"""Tokens of the vocabulary whose embeddings are scored together."""
_DRAWS = 4
"""Candidates drawn for each that is wanted: some are drawn twice, and some do not survive as text."""


class SearchConfig(Frozen):
    """How tokens are searched for."""

    length: int = Field(12, ge=1, description="Tokens of the adversary's text where the search starts")
    candidates: int = Field(24, ge=1, description="Texts tried at each step, each with one token exchanged")
    top_k: int = Field(64, ge=1, description="Tokens of each place that are tried: those that the gradient likes best")
    rows_per_step: int = Field(2, ge=1, description="Rows on which a step compares texts, drawn anew at each step")


@dataclass(frozen=True)
class SearchStep:
    """Where a search stands after a step."""

    ids: tuple[int, ...]
    loss: float
    """On the rows of this step."""


def search(
    model: LanguageModel,
    goals: Sequence[Goal],
    start: Sequence[int],
    admitted: Callable[[Sequence[int]], bool],
    config: SearchConfig,
    generator: torch.Generator,
    match: float = 0.0,
) -> Iterator[SearchStep]:
    """Exchange one token at a step, without end; the caller stops.

    A step draws rows, takes the loss's gradient for every token at every place, draws candidates among the best, and
    keeps the best of them, or what it had where none is better on these rows.

    Args:
        model: any model, in evaluation mode.
        goals: prompts with holes.
        start: the ids that are first in the holes.
        admitted: whether ids can be typed: as text they must give themselves.
        config: size of the search.
        generator: of every draw.
        match: weight of the distance to the original model's states.
    """
    forbidden = _forbidden(model)
    scorer = Candidates(model, goals, match)
    current = tuple(start)
    while True:
        rows = torch.randperm(len(goals), generator=generator)[: config.rows_per_step].tolist()
        liking = _liking(model, [goals[row] for row in rows], current, match)
        liking[:, forbidden] = -torch.inf
        tried = [current, *_drawn(liking, current, admitted, config, generator)]
        losses = scorer.losses(rows, tried)
        best = int(losses.argmin())
        current = tried[best]
        yield SearchStep(current, float(losses[best]))


def _liking(model: LanguageModel, goals: Sequence[Goal], ids: Sequence[int], match: float) -> Tensor:
    """How far, to first order, each token at each place would lower the loss: (K, V) on the CPU."""
    base = input_embeddings(model, torch.tensor(ids, device=model.device)).detach().float().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(soft_loss(model, goals, base, match), base)
    with torch.no_grad():
        parts = torch.split(torch.arange(_vocabulary(model), device=model.device), _CHUNK)
        return torch.cat([-slope @ input_embeddings(model, part).float().T for part in parts], dim=1).cpu()


def _drawn(
    liking: Tensor,
    current: tuple[int, ...],
    admitted: Callable[[Sequence[int]], bool],
    config: SearchConfig,
    generator: torch.Generator,
) -> list[tuple[int, ...]]:
    """Different admitted texts that differ from the current one at one place."""
    best = liking.topk(min(config.top_k, liking.shape[1]), dim=1).indices
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
    """Ids that nobody types: special tokens, and rows of the embedding without a token."""
    tokenizer = model.tokenizer
    special = {*tokenizer.all_special_ids, *tokenizer.get_added_vocab().values()}
    return torch.tensor(sorted({*special, *range(len(tokenizer), _vocabulary(model))}), dtype=torch.long)


def _vocabulary(model: LanguageModel) -> int:
    """Rows of the embedding."""
    base: Any = model.base
    return int(base.get_input_embeddings().weight.shape[0])
