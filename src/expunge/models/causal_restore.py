"""Causal tracing: noise on some tokens, and clean values restored at one block (arXiv:2202.05262).

A restored run differs from the noisy one from its block upwards and from the first restored position onwards. So it
starts at that block, reads the keys and values of earlier positions from the noisy run, and shares the higher blocks
with the runs of other blocks: one pass upwards, whose batch each block's rows join at their block. Where an
architecture does not allow for this, as a check on a few tokens shows, each block's runs are whole passes of their own.
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

from expunge.models.base import LanguageModel
from expunge.models.batches import shrinking
from expunge.models.cache import earlier
from expunge.models.hooks import entering_with, hand_through, leaving, leaving_with, replaced_forward
from expunge.models.shared_passes import CHECKED_TOKENS, decode, ends, label_logp, same_results
from expunge.models.sites import Site, site_modules

_CHECKED = 2048
"""Tokens of a pass with values put back in that check."""


@dataclass(frozen=True)
class TraceResult:
    """exp(mean log-probability of the labels) in three kinds of run; the last two are means over the noise draws."""

    clean: float
    corrupted: float
    restored: tuple[float, ...]
    """With the clean values of one block put back, for each block."""


@dataclass(frozen=True)
class _Question:
    """A sequence, the labels to predict, and the noise."""

    ids: Tensor
    """(T,) tokens."""
    labels: Tensor
    """(N,) tokens that are predicted."""
    positions: Tensor
    """(N,) where they are predicted."""
    noisy: list[int]
    restored: Tensor
    noise: Tensor

    def embedded(self, model: LanguageModel) -> Tensor:
        """(1 + draws, T, D) input embeddings: clean, and with each draw's noise."""
        runs = input_embeddings(model, self.ids).repeat(1 + len(self.noise), 1, 1)
        runs[1:, self.noisy] += self.noise.to(runs)
        return runs


class CausalRestorer:
    """Runs sequences with noise, and with clean values put back.

    Args:
        model: any model.
        site: whose output is put back: the feed-forward part, the attention, or the whole block.
        width: neighbouring blocks whose values are put back together; those beyond either end are left out.
        token_budget: most tokens of a pass with restored values. Default: as many as the device has room for.

    Raises:
        UserError: a block has no such part.
    """

    def __init__(
        self, model: LanguageModel, site: Site = "ffn", width: int = 1, token_budget: int | None = None
    ) -> None:
        self._model = model
        self._blocks = [block for _, block in model.blocks()]
        self._sites = [
            (layer, module)
            for layer in range(len(self._blocks))
            for module in site_modules(model, layer, site).values()
        ]
        self._width = width
        self._token_budget = token_budget
        self._joins: bool | None = None

    @torch.no_grad()
    def trace(
        self, ids: Sequence[int], labels: Sequence[int], noisy: Sequence[int], restored: Sequence[int], noise: Tensor
    ) -> TraceResult:
        """Probability of some tokens of a sequence in the clean run, the noisy ones, and those with values put back.

        Args:
            ids: T tokens.
            labels: places in `ids` of the tokens that are predicted, none of them the first.
            noisy: S places whose input embeddings get noise.
            restored: places at which clean values are put back.
            noise: (draws, S, D), added to the embeddings; the same for every block.
        """
        device = self._model.device
        question = _Question(
            ids=torch.tensor(ids[: max(labels)], device=device),
            labels=torch.tensor([ids[place] for place in labels], device=device),
            positions=torch.tensor(labels, device=device) - 1,
            noisy=list(noisy),
            restored=torch.tensor(restored, device=device),
            noise=noise,
        )
        with self._model.evaluating(), self._model.autocast():
            if self._joins is None:
                self._joins = self._can_join()
            runs = partial(self._joined if self._joins else self._alone, question, range(len(self._blocks)))
            found = shrinking(self._model.budget, device, "patch", runs, self._token_budget)
        clean, corrupted, back = found
        return TraceResult(float(clean), float(corrupted.mean()), tuple(back.mean(1).tolist()))

    def _can_join(self) -> bool:
        """Whether runs that share passes give what whole passes give, at the lowest and highest blocks."""
        ids = self._model.probe_ids(CHECKED_TOKENS)[0]
        width = embedding_width(self._model)
        noise = torch.randn(2, 1, width, generator=torch.Generator().manual_seed(0))
        noise = noise * float(input_embeddings(self._model, ids).float().std())
        last = torch.tensor([CHECKED_TOKENS - 2, CHECKED_TOKENS - 1], device=ids.device)
        question = _Question(ids, ids[last], last, [2], torch.tensor([2, 4], device=ids.device), noise)
        count = len(self._blocks)
        return same_results(
            self._model,
            lambda: [self._joined(question, layers, _CHECKED)[2].log() for layers in ends(count)],
            lambda: [self._alone(question, layers, _CHECKED)[2].log() for layers in ends(count)],
        )

    def _joined(self, question: _Question, layers: range, token_budget: int) -> tuple[Tensor, Tensor, Tensor]:
        """Probability in the clean run (), the noisy runs (draws,) and with each block's values put back (L, draws)."""
        draws = len(question.noise)
        first = int(question.restored.min())
        noised = _Noised(self._blocks, [site for _, site in self._sites], first, 1 + draws)
        runs = question.embedded(self._model)
        with noised.watched():
            hidden = self._decode(question.ids, runs, noised.cache)
        found = self._probability(hidden[:, question.positions], question.labels)
        places, positions = question.restored - first, question.positions - first
        shape = runs[:1, first:]
        back = [
            self._restored(group, noised, question.ids[first:], shape, places, positions, question.labels)
            for group in _groups(layers, draws * (len(question.ids) - first), token_budget)
        ]
        return found[0], found[1:], torch.cat(back).view(len(layers), draws)

    def _alone(self, question: _Question, layers: range, token_budget: int) -> tuple[Tensor, Tensor, Tensor]:
        """The same, every block's runs whole passes without a cache."""
        runs = question.embedded(self._model)
        clean: dict[int, Tensor] = {}
        places = question.restored

        def keep(index: int, output: Tensor) -> None:
            clean[index] = output.view(*runs.shape[:2], -1)[0, places].clone()

        def put_back(index: int, output: Tensor) -> None:
            output.view(-1, runs.shape[1], output.shape[-1])[:, places] = clean[index]  # some parts see rows as one

        with ExitStack() as stack:
            for index, (_, site) in enumerate(self._sites):
                stack.enter_context(leaving(site, partial(keep, index)))
            hidden = self._decode(question.ids, runs)
        found = self._probability(hidden[:, question.positions], question.labels)
        back = []
        for layer in layers:
            start = layer - self._width // 2
            with ExitStack() as stack:
                for index, (home, site) in enumerate(self._sites):
                    if start <= home < start + self._width:
                        stack.enter_context(leaving(site, partial(put_back, index)))
                parts = torch.split(runs[1:], max(1, token_budget // len(question.ids)))
                hidden = torch.cat([self._decode(question.ids, some)[:, question.positions] for some in parts])
            back.append(self._probability(hidden, question.labels))
        return found[0], found[1:], torch.stack(back)

    def _restored(
        self,
        group: range,
        noised: _Noised,
        ids: Tensor,
        shape: Tensor,
        places: Tensor,
        positions: Tensor,
        labels: Tensor,
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
            runs = output.view(joined, -1, len(ids), output.shape[-1])
            for run, layer in enumerate(group[:joined]):
                if layer - below <= self._sites[index][0] < layer - below + self._width:
                    runs[run][:, places] = noised.values[index][places]

        with ExitStack() as stack:
            for index, block in enumerate(self._blocks):
                if index < starts[0]:
                    stack.enter_context(replaced_forward(block, hand_through(self._model.layout.extras[index])))
                else:
                    stack.enter_context(entering_with(block, partial(join, index)))
            for index, (home, site) in enumerate(self._sites):
                if home >= starts[0]:
                    stack.enter_context(leaving(site, partial(put_back, index)))
            hidden = self._decode(ids, shape, noised.earlier(), noised.first)
        return self._probability(hidden[:, positions], labels)

    def _decode(self, ids: Tensor, embedded: Tensor, cache: Cache | None = None, start: int = 0) -> Tensor:
        """Final hidden states of T tokens, the first at position `start`, whose embeddings are given: (B, T, D).

        Token ids are given too, since some architectures look them up in further tables.
        """
        base: Any = self._model.base
        rows = ids.repeat(len(embedded), 1)
        with leaving_with(base.get_input_embeddings(), lambda _: embedded):
            if cache is not None:
                return decode(self._model, rows, start, cache)
            hidden: Tensor = self._model.decoder(input_ids=rows, use_cache=False).last_hidden_state
        return hidden

    def _probability(self, hidden: Tensor, labels: Tensor) -> Tensor:
        """(B, N, D) final hidden states before N labels -> (B,)."""
        return label_logp(self._model, hidden, labels).mean(-1).exp()


def _groups(layers: range, num_tokens: int, token_budget: int) -> list[range]:
    """Neighbouring blocks whose runs share a pass."""
    size = max(1, token_budget // num_tokens)
    return [layers[start : start + size] for start in range(0, len(layers), size)]


def input_embeddings(model: LanguageModel, ids: Tensor) -> Tensor:
    """Input embeddings of token ids: (T,) -> (T, D)."""
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
        num_rows: of the pass.
    """

    def __init__(self, blocks: Sequence[nn.Module], sites: Sequence[nn.Module], first: int, num_rows: int) -> None:
        self.first = first
        self._num_rows = num_rows
        self.cache = DynamicCache()
        self.inputs: list[Tensor] = []
        """(draws, T - first, D) what enters each block in the noisy rows."""
        self.values: dict[int, Tensor] = {}
        """(T - first, D) what each site gives in the clean row."""
        self._blocks = blocks
        self._sites = sites

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Keep it while this block of code runs the model."""

        def keep_input(hidden: Tensor) -> Tensor:
            self.inputs.append(hidden[1:, self.first :].clone())
            return hidden

        def keep_value(index: int, output: Tensor) -> None:
            rows = output.view(self._num_rows, -1, output.shape[-1])
            self.values[index] = rows[0, self.first :].clone()

        with ExitStack() as stack:
            for block in self._blocks:
                stack.enter_context(entering_with(block, keep_input))
            for index, site in enumerate(self._sites):
                stack.enter_context(leaving(site, partial(keep_value, index)))
            yield

    def earlier(self) -> Cache:
        """Keys and values of the noisy rows at the places before `first`."""
        return earlier(self.cache, self.first, first_row=1)
