"""The trained matrices of a model, and the second moments of what goes into them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from expunge.core.errors import UserError
from expunge.data.batch import by_length, collate
from expunge.data.encode import Encoded
from expunge.losses.activations import shared_opening
from expunge.models.base import LanguageModel
from expunge.models.forward import TOKEN_BUDGET
from expunge.models.partial import BlockStates, block_output, started, trained_blocks
from expunge.models.precision import float64

_EPS = 1e-12


@dataclass(frozen=True)
class Matrix:
    """A trained weight of the blocks that maps inputs to outputs."""

    name: str
    module: nn.Module
    weight: nn.Parameter

    @property
    def inputs_first(self) -> bool:
        """Whether the weight is (in, out), as in GPT-2, and not (out, in)."""
        return isinstance(self.module, Conv1D)

    @property
    def num_inputs(self) -> int:
        """Width of its inputs."""
        return self.weight.shape[0 if self.inputs_first else 1]


def trained_matrices(model: LanguageModel) -> list[Matrix]:
    """Every trained matrix in the blocks, in the model's order; their biases may be trained beside them.

    Raises:
        UserError: an adapter, or another weight is trained, e.g. of a norm or an embedding.
    """
    if hasattr(model.network, "peft_config"):
        raise UserError('combine: null_space changes the weights themselves; set model.adapter = "none"')
    in_blocks = tuple(f"{prefix}." for prefix, _ in model.blocks())
    matrices, biases = [], set()
    for name, module in model.base.named_modules():
        if name.startswith(in_blocks) and isinstance(module, nn.Linear | Conv1D):
            biases.add(f"{name}.bias")
            weight = module.weight
            if isinstance(weight, nn.Parameter) and weight.requires_grad:
                matrices.append(Matrix(f"{name}.weight", module, weight))
    known = biases.union(matrix.name for matrix in matrices)
    trained = [name for name, parameter in model.base.named_parameters() if parameter.requires_grad]
    others = [name for name in trained if name not in known]
    if others or not matrices:
        more = f" and {len(others) - 3} more" if len(others) > 3 else ""
        raise UserError(
            f"combine: null_space protects matrices in the blocks and nothing else, but localize chose "
            f"{', '.join(others[:3]) or 'none'}{more}; name them, e.g. localize.modules = ['mlp.down_proj']"
        )
    return matrices


def distinct_tokens(sequences: Sequence[Encoded], skip_first: bool) -> int:
    """How many different inputs the rows give: the opening that all of them share gives its own only once."""
    opening, first = shared_opening(sequences), int(skip_first)
    lengths = [len(row.ids) - row.num_padding for row in sequences]
    return sum(length - max(opening, first) for length in lengths) + max(opening - first, 0)


@torch.no_grad()
def second_moments(
    model: LanguageModel,
    matrices: Sequence[Matrix],
    sequences: Sequence[Encoded],
    *,
    skip_first: bool,
    normalise: bool,
    start: BlockStates | None = None,
) -> dict[nn.Parameter, Tensor]:
    """(d, d) float64 mean of `x x^T` over the tokens of some rows, for the inputs x of each matrix.

    The rows pass through the blocks once, up to the highest with a trained weight. Matrices with the same input, as the
    two that open a gated feed-forward part, get one and the same tensor.

    Args:
        model: the original model.
        matrices: whose inputs.
        sequences: encoded rows; all tokens count as often as they occur, padding never.
        skip_first: leave out position 0.
        normalise: divide each input by its length first.
        start: what enters the lowest trained block on these rows, to start there.
    """
    sums: dict[nn.Parameter, Tensor] = {}
    num_tokens, highest = 0, trained_blocks(model)[-1]
    with ExitStack() as stack, model.evaluating():
        collector = _Collector(sums, normalise)
        for matrix in matrices:
            stack.callback(matrix.module.register_forward_pre_hook(collector).remove)
        for indices in by_length([len(row.ids) for row in sequences], TOKEN_BUDGET):
            batch = collate([sequences[index] for index in indices], indices).to(model.device)
            collector.chosen = batch.attention_mask.bool().clone()
            collector.chosen[:, : int(skip_first)] = False
            num_tokens += int(collector.chosen.sum())
            with model.autocast(), started(start, indices):
                block_output(model, batch, highest)
    for moment in {id(moment): moment for moment in sums.values()}.values():
        moment /= num_tokens
    return sums


class _Collector:
    """A hook that adds up the inputs of the modules that it is put on."""

    def __init__(self, sums: dict[nn.Parameter, Tensor], normalise: bool) -> None:
        self.chosen = torch.empty(0)
        self._sums = sums
        self._normalise = normalise
        self._last: tuple[Tensor | None, Tensor] = (None, torch.empty(0))

    def __call__(self, module: nn.Module, args: tuple[Tensor, ...]) -> None:
        inputs, weight = args[0], module.weight
        assert isinstance(weight, nn.Parameter)
        seen, sum_of_seen = self._last
        if inputs is seen:
            self._sums[weight] = sum_of_seen
            return
        kept = float64(inputs[self.chosen])
        if self._normalise:
            kept /= kept.norm(dim=-1, keepdim=True).clamp(min=_EPS)
        size = kept.shape[1]
        moment = self._sums.setdefault(weight, kept.new_zeros(size, size))
        moment.addmm_(kept.mT, kept)
        self._last = (inputs, moment)
