"""What an optimised prompt is to bring about, as a loss: of vectors with a gradient, of candidate texts in batches."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor

from expunge.attacks._prompt_slots import PromptSlot
from expunge.data.batch import Batch, collate
from expunge.data.encode import Encoded
from expunge.models.base import LanguageModel
from expunge.models.batches import shrinking
from expunge.models.block_outputs import label_states
from expunge.models.hooks import leaving
from expunge.models.prefix import encode_prompts
from expunge.models.soft_prompt import soft_ids, softened
from expunge.numerics.token import reduce_tokens, token_logp, widen


@dataclass(frozen=True)
class Goal:
    """A prompt with a hole, and what the original model's blocks gave where the target is predicted."""

    hole: PromptSlot
    states: Mapping[int, Tensor] = field(default_factory=dict)
    """Block -> (n, D); empty: hidden states do not enter the loss."""


def goals_of(
    holes: Sequence[PromptSlot], original: LanguageModel | None = None, layers: Sequence[int] = ()
) -> list[Goal]:
    """Goals, which also ask for the original model's hidden states where that is given.

    Args:
        holes: prompts and targets.
        original: asked without anything in the holes.
        layers: whose outputs are to be matched.
    """
    if original is None:
        return [Goal(one) for one in holes]
    plain = [Encoded((*one.before, *one.after, *one.target), len(one.before) + len(one.after)) for one in holes]
    states = label_states(original, plain)
    return [Goal(one, {layer: found[layer] for layer in layers}) for one, found in zip(holes, states, strict=True)]


def soft_loss(model: LanguageModel, goals: Sequence[Goal], vectors: Tensor, match: float = 0.0) -> Tensor:
    """Loss of vectors that stand in the holes, a scalar with a gradient: (K, D) -> ().

    `mean over rows of (mean -log p(target token) + match * mean ||h - h0|| / ||h0||)`, the second mean over the
    target's tokens and the layers of the goals.
    """
    soft = soft_ids(len(vectors))
    rows = [Encoded((*one.hole.prompt(soft), *one.hole.target), len(one.hole.prompt(soft))) for one in goals]
    batch = collate(rows, range(len(rows))).to(model.device)
    with softened(model, vectors), model.autocast(), watched(model, goals) as seen:
        output = model.decoder(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
        logits = model.head(output.last_hidden_state[batch.rows, batch.positions])
    losses = -token_logp(logits, batch.labels)
    if seen:
        losses = losses + match * _distance(goals, {at: one[batch.rows, batch.positions] for at, one in seen.items()})
    return reduce_tokens(losses, batch.rows, batch.num_rows, "seq_mean")


class Candidates:
    """Scores token candidates for the same holes again and again: what stands before them is encoded once.

    Args:
        model: any model.
        goals: R prompts and targets.
        match: weight of the distance to the original model's states.
    """

    def __init__(self, model: LanguageModel, goals: Sequence[Goal], match: float = 0.0) -> None:
        self._model = model
        self._goals = goals
        self._match = match
        starts = [one.hole.before for one in goals]
        self._prefix = encode_prompts(model, starts) if all(starts) and model.caching.extends else None
        """None where a prompt begins in its hole, or nothing can be kept."""

    @torch.no_grad()
    def losses(self, rows: Sequence[int], candidates: Sequence[Sequence[int]]) -> Tensor:
        """The loss, as `soft_loss` has it, of each of C candidates, a mean over some of the rows: (C,) on the CPU."""
        pairs = [(row, number) for number in range(len(candidates)) for row in rows]
        length = max(self._tail(row, candidates[0]) for row in rows)

        def work(budget: int) -> Tensor:
            size = max(1, budget // length)
            found = [
                self._pairs([(row, candidates[number]) for row, number in pairs[start : start + size]])
                for start in range(0, len(pairs), size)
            ]
            return torch.cat(found)

        found = shrinking(self._model.budget, self._model.device, "draft", work)
        return found.view(len(candidates), len(rows)).mean(1).cpu()

    def _tail(self, row: int, ids: Sequence[int]) -> int:
        one = self._goals[row].hole
        return len(ids) + len(one.after) + len(one.target) - 1

    def _pairs(self, pairs: Sequence[tuple[int, Sequence[int]]]) -> Tensor:
        """The loss of each row with its candidate: (B,)."""
        model, goals = self._model, [self._goals[row] for row, _ in pairs]
        starts = [
            (*(() if self._prefix else one.hole.before), *ids, *one.hole.after)
            for one, (_, ids) in zip(goals, pairs, strict=True)
        ]
        tails = [Encoded((*start, *one.hole.target), len(start)) for one, start in zip(goals, starts, strict=True)]
        batch = collate(tails, range(len(tails))).to(model.device)
        with watched(model, goals) as seen:
            hidden = self._hidden(batch, [row for row, _ in pairs])
        with model.autocast():
            logits = model.head(hidden[batch.rows, batch.positions])
        losses = -token_logp(logits, batch.labels)
        if seen:
            near = {at: one[batch.rows, batch.positions] for at, one in seen.items()}
            losses = losses + self._match * _distance(goals, near)
        lengths = torch.bincount(batch.rows, minlength=len(pairs))
        return losses.new_zeros(len(pairs)).index_add(0, batch.rows, losses) / lengths

    def _hidden(self, batch: Batch, rows: Sequence[int]) -> Tensor:
        """(B, T, D) final hidden states of the tails of some rows."""
        if self._prefix is not None:
            branch = self._prefix.select(torch.tensor(rows, device=self._model.device))
            return branch.extend(batch.input_ids, batch.attention_mask)
        with self._model.autocast():
            output = self._model.decoder(
                input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False
            )
        hidden: Tensor = output.last_hidden_state
        return hidden


@contextmanager
def watched(model: LanguageModel, goals: Sequence[Goal]) -> Iterator[dict[int, Tensor]]:
    """Within this block of code a forward pass keeps the outputs of the blocks that the goals ask for."""
    blocks = model.blocks()
    seen: dict[int, Tensor] = {}

    def keep(layer: int, hidden: Tensor) -> None:
        seen[layer] = hidden

    with ExitStack() as stack:
        for layer in goals[0].states:
            stack.enter_context(leaving(blocks[layer][1], lambda hidden, at=layer: keep(at, hidden)))  # type: ignore[misc]
        yield seen


def _distance(goals: Sequence[Goal], seen: Mapping[int, Tensor]) -> Tensor:
    """Relative distance of each label's states from the original ones, a mean over layers: (N,)."""
    found = []
    for layer, hidden in seen.items():
        wide = widen(hidden)
        wanted = torch.cat([one.states[layer] for one in goals]).to(wide)
        found.append((wide - wanted).norm(dim=-1) / wanted.norm(dim=-1))
    return torch.stack(found).mean(0)
