"""Running a sequence with noise on some tokens, and again with clean values put back at one block (arXiv:2202.05262).

A run with values put back differs from the noisy one from its block upwards, and from the first place put back onwards.
So it starts at that block, reads the keys and values of earlier places from the noisy run, and shares the higher blocks
with the runs of other blocks: one pass upwards, in which every block's rows join the batch as it is reached.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache, DynamicCache

from expunge.losses.token import token_logp
from expunge.models.base import LanguageModel
from expunge.models.cache import earlier
from expunge.models.hooks import entering_with, hand_through, leaving, replaced_forward
from expunge.models.sites import Site, site_module

_HEAD_BUDGET = 256
"""Positions at which the output matrix is applied at a time."""


@dataclass(frozen=True)
class Traced:
    """exp(mean log-probability of the labels) in three kinds of run; the last two are means over the noise draws."""

    clean: float
    corrupted: float
    restored: tuple[float, ...]
    """With the clean values of one block put back, for each block."""


class Restoring:
    """Runs sequences with noise, and with clean values put back.

    Args:
        model: any model.
        site: whose output is put back: the feed-forward part, the attention, or the whole block.
        width: neighbouring blocks whose values are put back together; those beyond either end are left out.
        token_budget: tokens of one pass with values put back.

    Raises:
        UserError: a block has no such module.
    """

    def __init__(self, model: LanguageModel, site: Site = "ffn", width: int = 1, token_budget: int = 2048) -> None:
        self._model = model
        self._blocks = [block for _, block in model.blocks()]
        self._sites = [site_module(prefix, block, site) for prefix, block in model.blocks()]
        self._width = width
        self._token_budget = token_budget

    @torch.no_grad()
    def trace(
        self, ids: Sequence[int], labels: Sequence[int], noisy: Sequence[int], restored: Sequence[int], noise: Tensor
    ) -> Traced:
        """Probability of some tokens of a sequence in the clean run, the noisy ones, and those with values put back.

        Args:
            ids: T tokens.
            labels: places in `ids` of the tokens that are predicted, none of them the first.
            noisy: S places whose input embeddings get noise.
            restored: places at which clean values are put back.
            noise: (draws, S, D), added to the embeddings; the same for every block.
        """
        first = min(restored)
        read = torch.tensor(ids[: max(labels)], device=self._model.device)
        wanted = torch.tensor([ids[place] for place in labels], device=self._model.device)
        positions = torch.tensor(labels, device=self._model.device) - 1
        places = torch.tensor(restored, device=self._model.device) - first
        with self._model.evaluating(), self._model.autocast():
            embedded = input_embeddings(self._model, read)
            runs = embedded.repeat(1 + len(noise), 1, 1)
            runs[1:, list(noisy)] += noise.to(runs)
            noised = _Noised(self._blocks, self._sites, first)
            with noised.watched():
                hidden = self._decode(runs, noised.cache)
            found = self._probability(hidden[:, positions], wanted)
            back = [
                self._restored(group, noised, embedded[None, first:], places, positions - first, wanted)
                for group in self._groups(len(noise) * (len(read) - first))
            ]
        means = torch.cat(back).view(len(self._blocks), len(noise)).mean(1)
        return Traced(float(found[0]), float(found[1:].mean()), tuple(means.tolist()))

    def _groups(self, num_tokens: int) -> list[range]:
        """Neighbouring blocks whose runs share a pass."""
        size = max(1, self._token_budget // num_tokens)
        return [range(start, min(start + size, len(self._blocks))) for start in range(0, len(self._blocks), size)]

    def _restored(
        self, group: range, noised: _Noised, shape: Tensor, places: Tensor, positions: Tensor, labels: Tensor
    ) -> Tensor:
        """Probability in the runs of a group: (blocks * draws,), block by block."""
        below = self._width // 2
        starts = [max(0, layer - below) for layer in group]
        joined = 0

        def join(index: int, hidden: Tensor) -> Tensor:
            nonlocal joined
            new = [noised.inputs[index]] * starts.count(index)
            old = [hidden] if joined else []
            joined += len(new)
            return torch.cat([*old, *new])

        def put_back(index: int, output: Tensor) -> None:
            runs = output.view(joined, -1, *output.shape[1:])
            for run, layer in enumerate(group[:joined]):
                if layer - below <= index < layer - below + self._width:
                    runs[run][:, places] = noised.values[index][places]

        with ExitStack() as stack:
            for index, (block, site) in enumerate(zip(self._blocks, self._sites, strict=True)):
                if index < starts[0]:
                    stack.enter_context(replaced_forward(block, hand_through(self._model.layout.extras[index])))
                else:
                    stack.enter_context(entering_with(block, partial(join, index)))
                    stack.enter_context(leaving(site, partial(put_back, index)))
            hidden = self._decode(shape, noised.earlier(), noised.first)
        return self._probability(hidden[:, positions], labels)

    def _decode(self, embedded: Tensor, cache: Cache, start: int = 0) -> Tensor:
        """Final hidden states of (B, T, D) input embeddings whose first stands at place `start`."""
        places = torch.arange(start, start + embedded.shape[1], device=embedded.device)[None]
        output = self._model.decoder(inputs_embeds=embedded, position_ids=places, past_key_values=cache, use_cache=True)
        hidden: Tensor = output.last_hidden_state
        return hidden

    def _probability(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """(B, N, D) final hidden states before N labels -> (B,)."""
        rows = max(1, _HEAD_BUDGET // len(labels))
        logp = [
            token_logp(self._model.head(some).flatten(0, 1), labels.repeat(len(some))).view(len(some), -1)
            for some in torch.split(hidden, rows)
        ]
        return torch.cat(logp).mean(-1).exp()


def input_embeddings(model: LanguageModel, ids: Tensor) -> Tensor:
    """What the decoder makes of token ids before its first block: (T,) -> (T, D)."""
    base: Any = model.base
    embedded: Tensor = base.get_input_embeddings()(ids)
    return embedded


def embedding_width(model: LanguageModel) -> int:
    """Size of an input embedding."""
    return input_embeddings(model, torch.zeros(1, dtype=torch.long, device=model.device)).shape[-1]


class _Noised:
    """What is kept of the pass over one clean row and the noisy rows, from place `first` on, and of the cache before.

    Args:
        blocks: the decoder blocks.
        sites: the modules whose clean outputs are kept.
        first: the first place at which values will be put back.
    """

    def __init__(self, blocks: Sequence[nn.Module], sites: Sequence[nn.Module], first: int) -> None:
        self.first = first
        self.cache = DynamicCache()
        self.inputs: list[Tensor] = []
        """(draws, T - first, D) what enters each block in the noisy rows."""
        self.values: list[Tensor] = []
        """(T - first, D) what each site gives in the clean row."""
        self._blocks = blocks
        self._sites = sites

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Keep it while this block of code runs the model."""

        def keep_input(hidden: Tensor) -> Tensor:
            self.inputs.append(hidden[1:, self.first :].clone())
            return hidden

        def keep_value(output: Tensor) -> None:
            self.values.append(output[0, self.first :].clone())

        with ExitStack() as stack:
            for block, site in zip(self._blocks, self._sites, strict=True):
                stack.enter_context(entering_with(block, keep_input))
                stack.enter_context(leaving(site, keep_value))
            yield

    def earlier(self) -> Cache:
        """Keys and values of the noisy rows at the places before `first`."""
        return earlier(self.cache, self.first, first_row=1)
