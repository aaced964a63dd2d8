"""Encoded prompts, from which decoding and scoring continue.

How to continue from a prompt depends on the model (`LanguageModel.caching`): a key/value cache, whose padding
must not change any answer, or else the tokens themselves, which are read again.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import takewhile

import torch
from torch import Tensor
from transformers.cache_utils import Cache, LinearAttentionLayer

from expunge.data.batch import to_device
from expunge.models.base import LanguageModel
from expunge.models.cache import roomy_cache, select_rows


@dataclass
class CachedPast:
    """Keys, values and states of every block."""

    cache: Cache

    def select(self, rows: Tensor) -> CachedPast:
        """The same rows in another order, repeated or left out; shares no memory with this one."""
        return CachedPast(select_rows(self.cache, rows))

    def feed(self, model: LanguageModel, ids: Tensor, mask: Tensor, *, step: bool = False) -> Tensor:
        """Read S more tokens of each row and keep them; positions count the real tokens.

        Args:
            model: the model that read what is kept.
            ids: (P, S) tokens.
            mask: (P, T + S) 1 for the real tokens, new ones included.
            step: a real token for each row, one of many to come.

        Returns:
            (P, S, D) final hidden states; those of padding mean nothing.
        """
        known = inspect.signature(model.decoder.forward).parameters
        name = "past_key_values" if "past_key_values" in known or "cache_params" not in known else "cache_params"
        positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        if all(type(layer) is LinearAttentionLayer for layer in self.cache.layers):
            mask = mask[:, -ids.shape[1] :]  # without keys there is nothing else for it to hide
        with model.autocast():
            output = model.decoder(
                input_ids=ids, attention_mask=mask, position_ids=positions, use_cache=True, **{name: self.cache}
            )
        hidden: Tensor = output.last_hidden_state
        return hidden


@dataclass
class TokenPast:
    """The tokens themselves."""

    ids: Tensor
    """(P, T), with padding anywhere."""

    def select(self, rows: Tensor) -> TokenPast:
        """The same rows in another order, repeated or left out."""
        return TokenPast(self.ids[rows])

    def feed(self, model: LanguageModel, ids: Tensor, mask: Tensor, *, step: bool = False) -> Tensor:
        """Read everything again, with padding on the right only, which no real token can see."""
        self.ids = torch.cat([self.ids, ids], dim=1)
        return self.read(model, mask, ids.shape[1])

    def read(self, model: LanguageModel, mask: Tensor, count: int) -> Tensor:
        """(P, count, D) final hidden states at the last places."""
        order = mask.argsort(dim=1, descending=True, stable=True)[:, : int(mask.sum(1).max())]
        hidden = plain_hidden(model, self.ids.gather(1, order), mask.gather(1, order))
        places = (mask.cumsum(1) - 1).clamp(min=0)[:, -count:, None]
        return hidden.gather(1, places.expand(-1, -1, hidden.shape[-1]))


@dataclass
class SteppedPast:
    """A cache that only serves single tokens, and the tokens for everything else.

    Recurrent states are computed by another formula for many tokens than for one. Few models can start the former from
    a state, and rounding then differs more than the same answer may from one reading to another.
    """

    tokens: TokenPast
    cached: CachedPast | None
    """None once more than single tokens were added."""

    def select(self, rows: Tensor) -> SteppedPast:
        """The same rows in another order, repeated or left out; shares no memory with this one."""
        return SteppedPast(self.tokens.select(rows), self.cached and self.cached.select(rows))

    def feed(self, model: LanguageModel, ids: Tensor, mask: Tensor, *, step: bool = False) -> Tensor:
        """Read the new tokens only if they are the first, or single ones."""
        if self.cached is not None and (step or ids.shape[1] == mask.shape[1]):
            self.tokens.ids = torch.cat([self.tokens.ids, ids], dim=1)
            return self.cached.feed(model, ids, mask, step=step)
        self.cached = None
        return self.tokens.feed(model, ids, mask)


Past = CachedPast | TokenPast | SteppedPast
"""State from which P rows of T positions continue: `select` rows of it, and `feed` it more tokens."""


def plain_hidden(model: LanguageModel, ids: Tensor, mask: Tensor | None = None) -> Tensor:
    """(B, T, D) final hidden states of one pass over right-padded rows, without a cache."""
    with model.autocast():
        hidden: Tensor = model.decoder(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
    return hidden


@dataclass
class Prefix:
    """P prompts after one forward pass."""

    model: LanguageModel
    past: Past
    mask: Tensor
    """(P, T) attention mask."""
    logits: Tensor
    """(P, V) logits after the last prompt token."""
    _plain: Tensor | None = None
    """The same from plain passes, computed on first use."""

    @property
    @torch.no_grad()
    def first_logits(self) -> Tensor:
        """(P, V) logits after the last token, for scores.

        Recurrent states that padding lies before are right, but their rounding is coarser than that of a pass over the
        row alone (gated delta rules: ten times): such rows are read again.
        """
        if not isinstance(self.past, SteppedPast) or bool(self.mask.all()):
            return self.logits
        if self._plain is None:
            hidden = self.past.tokens.read(self.model, self.mask, 1)
            with self.model.autocast():
                self._plain = self.model.head(hidden[:, -1]).float()
        return self._plain

    def room(self) -> list[int] | None:
        """How many more tokens each row may get before a table of learned positions ends; None without such a table.

        The last of them is not read any more.
        """
        context = self.model.layout.context
        if context is None:
            return None
        left: list[int] = (context + 1 - self.mask.sum(1)).tolist()
        return left

    def select(self, rows: Tensor) -> Prefix:
        """The same prompts in another order, repeated or left out; shares no memory with this one."""
        plain = None if self._plain is None else self._plain[rows]
        return Prefix(self.model, self.past.select(rows), self.mask[rows], self.logits[rows], plain)

    def keep(self, rows: Tensor) -> None:
        """Keep these rows only, in this order; the logits stay as they are."""
        self.past, self.mask, self._plain = self.past.select(rows), self.mask[rows], None

    def step(self, tokens: Tensor) -> None:
        """Read one more token a row, (P,) on the model's device; the logits are those after it."""
        ids = tokens[:, None]
        self.mask = torch.cat([self.mask, torch.ones_like(ids)], dim=1)
        hidden = self.past.feed(self.model, ids, self.mask, step=True)
        self._plain = None
        with self.model.autocast():
            self.logits = self.model.head(hidden[:, -1]).float()

    def extend(self, ids: Tensor, mask: Tensor) -> Tensor:
        """Read S more tokens a row and give their final hidden states.

        Args:
            ids: (P, S) tokens, right-padded. Rows with padding can be extended again only if padding may lie between
                tokens (`CachePolicy.holes`).
            mask: (P, S) 1 for real tokens.

        Returns:
            (P, S, D).
        """
        self.mask = torch.cat([self.mask, mask], dim=1)
        return self.past.feed(self.model, ids, self.mask)


@torch.no_grad()
def encode_prompts(model: LanguageModel, prompts: Sequence[Sequence[int]]) -> Prefix:
    """Read P prompts once; what they all begin with is read a single time where that changes nothing."""
    device, caching = model.device, model.caching
    shared = _shared_length(prompts) if caching.holes and caching.keeps else 0
    past: Past
    past = tokens = TokenPast(torch.zeros(1, 0, dtype=torch.long, device=device))
    if caching.keeps:
        past = cached = CachedPast(roomy_cache(model.base.config, caching.longest, device))
        past = SteppedPast(tokens, cached) if caching.steps_only else cached
    prefix = Prefix(model, past, torch.zeros(1, 0, dtype=torch.long, device=device), torch.empty(0))
    if shared:
        start = torch.tensor([prompts[0][:shared]], device=device)
        prefix.extend(start, torch.ones_like(start))
    prefix.past = prefix.past.select(torch.zeros(len(prompts), dtype=torch.long, device=device))
    prefix.mask = prefix.mask.repeat(len(prompts), 1)
    rests = [prompt[shared:] for prompt in prompts]
    width = max(map(len, rests))
    ids = torch.zeros(len(rests), width, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, rest in enumerate(rests):
        ids[row, width - len(rest) :] = torch.tensor(rest)
        mask[row, width - len(rest) :] = 1
    hidden = prefix.extend(to_device(ids, device), to_device(mask, device))
    with model.autocast():
        prefix.logits = model.head(hidden[:, -1]).float()
    return prefix


def _shared_length(prompts: Sequence[Sequence[int]]) -> int:
    """How many tokens all prompts begin with, less than the whole of any."""
    columns = zip(*(prompt[:-1] for prompt in prompts), strict=False)
    return sum(1 for _ in takewhile(lambda column: len(set(column)) == 1, columns))
