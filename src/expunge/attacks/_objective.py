"""The loss of adversarial prompts: differentiable for vectors, batched for candidate texts."""

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
    """A prompt with a slot, and the original model's states where the target is predicted."""

    slot: PromptSlot
    states: Mapping[int, Tensor] = field(default_factory=dict)
    """Block -> (n, D); empty: the loss ignores hidden states."""


def goals_of(
    slots: Sequence[PromptSlot], original: LanguageModel | None = None, layers: Sequence[int] = ()
) -> list[Goal]:
    """Goals, with the original model's hidden states if that model is given.

    Args:
        slots: prompts and targets.
        original: its states are computed with empty slots.
        layers: blocks whose outputs should be matched.
    """
    if original is None:
        return [Goal(one) for one in slots]
    plain = [Encoded((*one.before, *one.after, *one.target), len(one.before) + len(one.after)) for one in slots]
    states = label_states(original, plain)
    return [Goal(one, {layer: found[layer] for layer in layers}) for one, found in zip(slots, states, strict=True)]


def soft_loss(model: LanguageModel, goals: Sequence[Goal], vectors: Tensor, match: float = 0.0) -> Tensor:
    """Differentiable loss of vectors in the slots: (K, D) -> scalar.

    `mean over rows of (mean -log p(target token) + match * mean ||h - h0|| / ||h0||)`, the second mean over the
    target's tokens and the layers of the goals.
    """
    soft = soft_ids(len(vectors))
    rows = [Encoded((*one.slot.prompt(soft), *one.slot.target), len(one.slot.prompt(soft))) for one in goals]
    batch = collate(rows, range(len(rows))).to(model.device)
    with softened(model, vectors), model.autocast(), watched(model, goals) as outputs:
        output = model.decoder(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
        logits = model.head(output.last_hidden_state[batch.rows, batch.positions])
    losses = -token_logp(logits, batch.labels)
    if outputs:
        losses = losses + match * _distance(
            goals, {at: one[batch.rows, batch.positions] for at, one in outputs.items()}
        )
    return reduce_tokens(losses, batch.rows, batch.num_rows, "seq_mean")


class Candidates:
    """Scores token candidates for the same slots repeatedly; the prompt before a slot is encoded once.

    Args:
        model: any model.
        goals: R prompts and targets.
        match: weight of the distance to the original model's states.
    """

    def __init__(self, model: LanguageModel, goals: Sequence[Goal], match: float = 0.0) -> None:
        self._model = model
        self._goals = goals
        self._match = match
        starts = [one.slot.before for one in goals]
        self._prefix = encode_prompts(model, starts) if all(starts) and model.caching.extends else None
        """None if a prompt begins with its slot, or the model has no reusable cache."""

    @torch.no_grad()
    def losses(self, rows: Sequence[int], candidates: Sequence[Sequence[int]]) -> Tensor:
        """The loss of `soft_loss` for each of C candidates, averaged over the given rows: (C,) on the CPU."""
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
        one = self._goals[row].slot
        return len(ids) + len(one.after) + len(one.target) - 1

    def _pairs(self, pairs: Sequence[tuple[int, Sequence[int]]]) -> Tensor:
        """The loss of each row with its candidate: (B,)."""
        model, goals = self._model, [self._goals[row] for row, _ in pairs]
        starts = [
            (*(() if self._prefix else one.slot.before), *ids, *one.slot.after)
            for one, (_, ids) in zip(goals, pairs, strict=True)
        ]
        tails = [Encoded((*start, *one.slot.target), len(start)) for one, start in zip(goals, starts, strict=True)]
        batch = collate(tails, range(len(tails))).to(model.device)
        with watched(model, goals) as outputs:
            hidden = self._hidden(batch, [row for row, _ in pairs])
        with model.autocast():
            logits = model.head(hidden[batch.rows, batch.positions])
        losses = -token_logp(logits, batch.labels)
        if outputs:
            states = {at: one[batch.rows, batch.positions] for at, one in outputs.items()}
            losses = losses + self._match * _distance(goals, states)
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
    """Record the outputs of the blocks that the goals match, within this block of code."""
    blocks = model.blocks()
    outputs: dict[int, Tensor] = {}

    def keep(layer: int, hidden: Tensor) -> None:
        outputs[layer] = hidden

    with ExitStack() as stack:
        for layer in goals[0].states:
            stack.enter_context(leaving(blocks[layer][1], lambda hidden, at=layer: keep(at, hidden)))  # type: ignore[misc]
        yield outputs


def _distance(goals: Sequence[Goal], outputs: Mapping[int, Tensor]) -> Tensor:
    """Relative distance of each label's states from the original ones, averaged over layers: (N,)."""
    found = []
    for layer, hidden in outputs.items():
        wide = widen(hidden)
        wanted = torch.cat([one.states[layer] for one in goals]).to(wide)
        found.append((wide - wanted).norm(dim=-1) / wanted.norm(dim=-1))
    return torch.stack(found).mean(0)
