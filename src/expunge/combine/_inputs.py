"""The trained matrices of a model, and the second moments of what goes into them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from expunge.core.errors import UserError
from expunge.data.batch import by_length, collate
from expunge.data.encode import Encoded
from expunge.losses.activations import shared_opening
from expunge.models.base import LanguageModel
from expunge.models.batches import free_memory, shrinking
from expunge.models.expert_inputs import shows_inputs, watched_experts
from expunge.models.matrices import WeightMatrix, block_matrices
from expunge.models.partial import BlockStates, block_output, can_enter, started, trained_blocks
from expunge.models.precision import float64

_EPS = 1e-12
_SHARE = 0.5
"""Of the free memory that the moments of a group of matrices may take."""


@dataclass
class Moments:
    """Second moments of the inputs of a weight's matrices: one, or one for each expert."""

    means: list[Tensor]
    """(d, d) float64 means of `x x^T`; zeros for an expert that no token reached."""
    tokens: list[int]
    """How many tokens each is the mean over."""


def trained_matrices(model: LanguageModel) -> list[WeightMatrix]:
    """Every trained matrix in the blocks, in the model's order; their biases may be trained beside them.

    Raises:
        UserError: an adapter; another trained weight, e.g. of a norm or an embedding; or experts whose inputs cannot
            be observed.
    """
    if hasattr(model.network, "peft_config"):
        raise UserError('combine: null_space changes the weights themselves; set model.adapter = "none"')
    every = block_matrices(model)
    matrices = [matrix for matrix in every.values() if matrix.weight.requires_grad]
    owners = {matrix.name.rpartition(".")[0] for matrix in every.values()}
    trained = [(name, weight) for name, weight in model.base.named_parameters() if weight.requires_grad]
    biases = {name for name, _ in trained if "bias" in name.rpartition(".")[2] and name.rpartition(".")[0] in owners}
    others = [name for name, _ in trained if name not in every and name not in biases]
    if others or not matrices:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise UserError(
            f"combine: null_space protects matrices in the blocks and nothing else, but localize chose "
            f"{', '.join(others[:3]) or 'none'}{more}; name them, e.g. localize.modules = ['mlp.down_proj']"
        )
    hidden = next((matrix for matrix in matrices if not matrix.is_layer and not shows_inputs(matrix.module)), None)
    if hidden is not None:
        raise UserError(
            f"combine: null_space cannot see what goes into {hidden.name}, since {type(hidden.module).__name__} does "
            "not compute by transformers' interface for experts; "
            'use combine.name = "weighted_sum", or name other localize.modules'
        )
    return matrices


def distinct_tokens(sequences: Sequence[Encoded], skip_first: bool) -> int:
    """How many different inputs the rows give: the opening that all of them share gives its own only once."""
    opening, first = shared_opening(sequences), int(skip_first)
    lengths = [len(row.ids) - row.num_padding for row in sequences]
    return sum(length - max(opening, first) for length in lengths) + max(opening - first, 0)


def fitting(matrices: Sequence[WeightMatrix], device: torch.device) -> Iterator[list[WeightMatrix]]:
    """Neighbouring matrices whose moments fit into memory together, beside the decomposition of one of them.

    Each group costs a pass over the rows, so there is one group wherever there is room.
    """
    room = _SHARE * free_memory(device)
    group: list[WeightMatrix] = []
    used = 0.0
    for matrix in matrices:
        size = 8.0 * matrix.num * matrix.num_inputs**2
        if group and used + size > room:
            yield group
            group, used = [], 0.0
        group.append(matrix)
        used += size
    yield group


@torch.no_grad()
def second_moments(
    model: LanguageModel,
    matrices: Sequence[WeightMatrix],
    sequences: Sequence[Encoded],
    *,
    skip_first: bool,
    normalise: bool,
    start: BlockStates | None = None,
) -> dict[nn.Parameter, Moments]:
    """Second moments of the inputs of each matrix, over the tokens of some rows; an expert's over those routed to it.

    The rows pass through the blocks once, up to the highest with a trained weight. Matrices with the same input, as the
    two that open a gated feed-forward part, get one and the same object.

    Args:
        model: the original model.
        matrices: whose inputs.
        sequences: encoded rows; all tokens count as often as they occur, padding never.
        skip_first: leave out position 0.
        normalise: divide each input by its length first.
        start: what enters the lowest trained block on these rows, to start there.

    Raises:
        MemoryExhausted: a single row does not fit beside the moments.
    """
    highest = trained_blocks(model)[-1]
    can_enter(model)  # its check runs passes of its own, which must not be counted below

    def work(size: int) -> dict[nn.Parameter, Moments]:
        batches = by_length([len(row.ids) for row in sequences], size)
        collector = _Collector(matrices, normalise)
        with _collecting(model, matrices, collector):
            for indices in batches:
                batch = collate([sequences[index] for index in indices], indices).to(model.device)
                collector.chosen = batch.attention_mask.bool().clone()
                collector.chosen[:, : int(skip_first)] = False
                with model.autocast(), started(start, indices):
                    block_output(model, batch, highest)
        return collector.found

    found = shrinking(model.budget, model.device, "states", work)
    for moments in {id(moments): moments for moments in found.values()}.values():
        for mean, tokens in zip(moments.means, moments.tokens, strict=True):
            mean /= max(tokens, 1)
    return found


@contextmanager
def _collecting(model: LanguageModel, matrices: Sequence[WeightMatrix], collector: _Collector) -> Iterator[None]:
    """Pass the inputs of the matrices to the collector within this block of code."""
    with ExitStack() as stack, model.evaluating():
        for matrix in matrices:
            if matrix.is_layer:
                stack.callback(matrix.module.register_forward_pre_hook(collector.layer).remove)
        experts = {matrix.module for matrix in matrices if not matrix.is_layer}
        if experts:
            stack.enter_context(watched_experts(experts, collector.expert))
        yield


class _Collector:
    """Adds up the inputs of matrices as they come."""

    def __init__(self, matrices: Sequence[WeightMatrix], normalise: bool) -> None:
        self.chosen = torch.empty(0)
        """(B, T) which tokens count."""
        self.found: dict[nn.Parameter, Moments] = {}
        self._matrices = {matrix.weight: matrix for matrix in matrices}
        self._normalise = normalise
        self._last: tuple[Tensor | None, Moments] = (None, Moments([], []))

    def layer(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        """A hook before a linear layer."""
        inputs, weight = args[0], module.weight
        assert isinstance(weight, nn.Parameter)
        seen, moments = self._last
        if inputs is seen:
            self.found[weight] = moments
            return
        moments = self._moments(weight, inputs)
        self._add(moments, 0, inputs.reshape(-1, inputs.shape[-1])[self.chosen.flatten()])
        self._last = (inputs, moments)

    def expert(self, stack: nn.Parameter, expert: int, inputs: Tensor, tokens: Tensor) -> None:
        """Inputs of one matrix of a stack."""
        if stack in self._matrices:
            self._add(self._moments(stack, inputs), expert, inputs[self.chosen.flatten()[tokens]])

    def _moments(self, weight: nn.Parameter, inputs: Tensor) -> Moments:
        if weight not in self.found:
            num, size = self._matrices[weight].num, inputs.shape[-1]
            zeros = float64(inputs.new_zeros(0)).new_zeros(num, size, size)
            self.found[weight] = Moments([*zeros], [0] * num)
        return self.found[weight]

    def _add(self, moments: Moments, place: int, inputs: Tensor) -> None:
        kept = float64(inputs)
        if self._normalise:
            kept /= kept.norm(dim=-1, keepdim=True).clamp(min=_EPS)
        moments.means[place].addmm_(kept.mT, kept)
        moments.tokens[place] += len(kept)
