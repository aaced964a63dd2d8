"""What losses on hidden states share: the blocks and tokens that count, and distances between states."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from expunge.core.errors import UserError
from expunge.data.batch import Batch, to_device
from expunge.data.encode import Encoded
from expunge.losses.base import Loss, Setup, TokenLossConfig, View
from expunge.models.base import LanguageModel
from expunge.models.forward import Needs
from expunge.models.partial import for_each_batch, site_outputs, started, trained_blocks
from expunge.models.sites import Site
from expunge.numerics.token import reduce_tokens, sequence_length, sequence_sum, widen

Scope = Literal["all", "own", "answer", "labels"]
_EPS = 1e-8


class StatesLossConfig(TokenLossConfig):
    """Options of every loss on hidden states."""

    tokens: Scope = Field(
        "own",
        description="all; own: all but the opening that all rows of the split share, e.g. a template's; answer: those "
        "that predict the answer's tokens; labels: the answer's tokens themselves, as in OpenUnlearning",
    )


class HiddenLossConfig(StatesLossConfig):
    """Options of every loss on the output of one block."""

    site: ClassVar[Site] = "hidden"
    layer: int | None = Field(
        None,
        description="Block whose output counts, negative: from the end; none: the highest with a trained weight",
    )


class SiteLossConfig(StatesLossConfig):
    """Options of every loss on the outputs of blocks or of their parts."""

    layer: int | Literal["trained"] | None = Field(
        None,
        description="Block whose output counts, negative: from the end; none: the highest with a trained weight; "
        "trained: every block with one, which count alike",
    )
    site: Site = Field(
        "hidden", description="Whose output: the whole block's (hidden), or its ffn's or attention's before it is added"
    )


class RetainStatesConfig(SiteLossConfig):
    """The same for retain rows, where all tokens count by default."""

    tokens: Scope = Field(
        "all",
        description="all; own: all but the opening that every row of the split has; answer: those that predict the "
        "answer's tokens; labels: the answer's tokens themselves",
    )


@dataclass(frozen=True)
class Tokens:
    """M chosen tokens of a batch of B rows; with several blocks, each token once for each block."""

    rows: Tensor
    """(M,) int64, ascending."""
    positions: Tensor
    """(M,) int64."""
    num_rows: int
    """B."""

    def of(self, hidden: Tensor) -> Tensor:
        """(B, T, D) -> (M, D), at least float32."""
        return widen(hidden[self.rows, self.positions])

    def repeated(self, times: int) -> Tokens:
        """Each token so many times in a row."""
        return Tokens(self.rows.repeat_interleave(times), self.positions.repeat_interleave(times), self.num_rows)


class ActivationSite:
    """The activations that a loss compares: outputs of blocks, or of a part of each, at some tokens.

    Args:
        config: which blocks and tokens.
        setup: the model and the rows.
        slot: names the option in messages.

    Raises:
        UserError: no such block, or no weight that is trained can move its output.
    """

    def __init__(self, config: HiddenLossConfig | SiteLossConfig, setup: Setup, slot: str) -> None:
        self.layers = _layers(setup.model, config.layer, slot)
        self.needs = Needs(reference_hidden=self.layers, site=config.site)
        self._scope = config.tokens
        self._opening = shared_opening(setup.sequences)

    def tokens(self, batch: Batch, first: int = 0) -> Tokens:
        """The tokens that count; padding never does.

        Args:
            batch: B rows.
            first: positions below this one do not count either, unless only answers do.
        """
        if self._scope == "answer":
            return Tokens(batch.rows, batch.positions, batch.num_rows)
        if self._scope == "labels":
            return Tokens(batch.rows, batch.positions + 1, batch.num_rows)
        start = max(first, self._opening if self._scope == "own" else 0)
        places = torch.arange(batch.input_ids.shape[1])
        chosen = (places >= start) & (places < torch.tensor(batch.lengths)[:, None])
        rows, positions = (to_device(found, batch.rows.device) for found in chosen.nonzero(as_tuple=True))
        return Tokens(rows, positions, batch.num_rows)

    @property
    def layer(self) -> int:
        """The highest block of the site."""
        return self.layers[-1]

    def states(self, view: View, first: int = 0) -> tuple[Tokens, Tensor, Tensor]:
        """The tokens (see `tokens`), and their (M, D) states now and in the original model."""
        tokens = self.tokens(view.batch, first)
        now, original = (
            self._flat(tokens, look(self.layers, self.needs.site)) for look in (view.hidden, view.reference_hidden)
        )
        return tokens.repeated(len(self.layers)), now, original

    def measured(self, model: LanguageModel, batch: Batch, layers: Sequence[int] = ()) -> tuple[Tokens, Tensor]:
        """The tokens and their (M, D) states in a pass of their own, at other blocks if some are named."""
        tokens = self.tokens(batch)
        outputs = site_outputs(model, batch, layers or self.layers, self.needs.site)
        return tokens.repeated(len(outputs)), self._flat(tokens, outputs)

    @staticmethod
    def _flat(tokens: Tokens, outputs: Sequence[Tensor]) -> Tensor:
        return torch.stack([tokens.of(output) for output in outputs], dim=1).flatten(0, 1)


class HiddenStatesLoss(Loss):
    """What losses on hidden states share: the site, and that they are means over its tokens."""

    first_position = 0
    """Positions below this one do not count."""

    def prepare(self, setup: Setup) -> None:
        """Find the site; `needs` then names the original states that must be kept.

        Raises:
            UserError: no such layer, or none that training can move.
        """
        self.site = ActivationSite(self.config, setup, self.slot)
        self.needs = self.site.needs

    def num_tokens(self, batch: Batch, epoch: int) -> int:
        """Those whose states count."""
        return len(self.site.tokens(batch, self.first_position).rows)


@torch.no_grad()
def row_norms(setup: Setup, site: ActivationSite, layer: int | None = None) -> Tensor:
    """(R, 2): mean norm and mean squared norm of each row's tokens, at a site of the original model or another layer.

    A mean of norms, not the norm of a mean, which is smaller. The states are not kept.
    """
    model = setup.model
    layers = site.layers if layer is None else (layer,)
    start = setup.inputs if setup.inputs and layers[0] >= setup.inputs.first else None
    norms = torch.empty(len(setup.sequences), 2)

    def work(batch: Batch) -> None:
        with started(start, batch.indices):
            tokens, states = site.measured(model, batch, layers)
        length, count = states.norm(dim=-1), batch.num_rows
        sums = torch.stack([sequence_sum(value, tokens.rows, count) for value in (length, length.square())], 1)
        norms[list(batch.indices)] = (sums / sequence_length(tokens.rows, count)[:, None]).cpu()

    for_each_batch(model, setup.sequences, "states", work)
    return norms


@torch.no_grad()
def padded_norm(setup: Setup, layer: int, indices: Sequence[int]) -> Tensor:
    """Mean norm of the states over all places of one batch that is padded on the left, the padding included.

    Args:
        setup: the model and the rows.
        layer: block whose output is measured.
        indices: the rows of the batch.
    """
    model, chosen = setup.model, [setup.sequences[index].ids for index in indices]
    width = max(map(len, chosen))
    missing = [width - len(ids) for ids in chosen]
    ids = torch.tensor([[model.encoder.end_id] * gap + list(row) for gap, row in zip(missing, chosen, strict=True)])
    mask = (torch.arange(width) >= torch.tensor(missing)[:, None]).long()
    none = torch.zeros(0, dtype=torch.long)
    batch = Batch(ids, mask, none, none, none, tuple(indices)).to(model.device)
    with model.evaluating(), model.autocast():
        (states,) = site_outputs(model, batch, [layer], "hidden")
    norm: Tensor = widen(states).norm(dim=-1).mean()
    return norm


def _layers(model: LanguageModel, layer: int | str | None, slot: str) -> tuple[int, ...]:
    """The blocks of a loss's site, ascending."""
    if isinstance(layer, str):
        trained = tuple(index for index in trained_blocks(model) if index >= 0)
        if not trained:
            raise UserError(f'{slot}.layer: no block holds a trained weight, so "{layer}" names none; give a number')
        return trained
    return (resolve_layer(model, layer, slot),)


def layer_at(model: LanguageModel, depth: float) -> int:
    """Index of the block at a share of the depth."""
    count = len(model.blocks())
    return min(round(depth * count), count - 1)


def resolve_layer(model: LanguageModel, layer: int | None, slot: str) -> int:
    """Index of the block of a loss's site.

    Raises:
        UserError: no such block, or it lies below every trained weight.
    """
    trained = trained_blocks(model)
    count = len(model.blocks())
    if layer is None:
        return trained[-1] if trained and trained[-1] >= 0 else count - 1
    layer = check_layer(model, layer, f"{slot}.layer")
    if trained and trained[0] > layer:
        raise UserError(f"{slot}.layer: no weight up to layer {layer} is trained; the lowest trained is {trained[0]}")
    return layer


def check_layer(model: LanguageModel, layer: int, option: str) -> int:
    """Index from 0 of a block that may be counted from the end.

    Raises:
        UserError: no such block.
    """
    count = len(model.blocks())
    if not -count <= layer < count:
        raise UserError(f"{option}: no layer {layer}; this model has layers 0 to {count - 1}")
    return layer % count


def shared_opening(sequences: Sequence[Encoded]) -> int:
    """How many tokens all rows begin with; 0 for a single row. Never a row's label, nor its last prompt token."""
    if len(sequences) < 2:
        return 0
    columns = zip(*(row.ids for row in sequences), strict=False)
    same = sum(1 for _ in itertools.takewhile(lambda column: len(set(column)) == 1, columns))
    return min(same, *(row.num_prompt - 1 for row in sequences))


def mean_by_row(values: Tensor, tokens: Tokens) -> Tensor:
    """(M,) -> mean over rows of a row's mean, for a curve: a scalar without a graph."""
    return reduce_tokens(values.detach(), tokens.rows, tokens.num_rows, "seq_mean")


def cosine(first: Tensor, second: Tensor) -> Tensor:
    """(M, D), (M, D) or (D,) -> (M,)."""
    return torch.nn.functional.cosine_similarity(first, second.expand_as(first), dim=-1, eps=_EPS)
