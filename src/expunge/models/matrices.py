"""The weight matrices of the decoder blocks: linear layers, stacks of expert matrices, and which axis is the input.

A linear layer and a `Conv1D` say so by their type. Mixture-of-experts models keep their experts as parameters of the
experts module, one matrix for each expert in a tensor of three axes (or of two, read in parts), some as (E, out, in)
and some as (E, in, out); recurrent blocks have parameters of two or three axes that are no matrices at all. Names do
not tell which is which, so the model runs once on a few tokens and every matrix product is recorded: a parameter is a
matrix if it is an operand of one, and the axis that the product sums over is its input.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.pytorch_utils import Conv1D

from expunge.models.base import LanguageModel


@dataclass(frozen=True)
class WeightMatrix:
    """A weight of the blocks that maps inputs to outputs, or a stack of such."""

    name: str
    """In the plain network."""
    module: nn.Module
    """Whose parameter it is."""
    weight: nn.Parameter
    num: int
    """How many matrices the weight holds: 1, or one for each expert."""
    inputs_first: bool
    """Whether a matrix is (in, out), as in GPT-2 and gpt-oss, and not (out, in)."""

    @property
    def is_layer(self) -> bool:
        """Whether it is the weight of a linear layer."""
        return isinstance(self.module, nn.Linear | Conv1D)

    def apart(self, tensor: Tensor) -> Tensor:
        """A tensor of the weight's shape -> (num, out, in), a view."""
        stack = tensor.reshape(self.num, -1, self._width)
        return stack.mT if self.inputs_first else stack

    def together(self, stack: Tensor) -> Tensor:
        """(num, out, in) -> a contiguous tensor of the weight's shape."""
        return (stack.mT if self.inputs_first else stack).reshape(self.weight.shape)

    @property
    def num_inputs(self) -> int:
        """Width of the inputs."""
        return self.apart(self.weight).shape[2]

    @property
    def num_outputs(self) -> int:
        """Width of the outputs."""
        return self.apart(self.weight).shape[1]

    @property
    def _width(self) -> int:
        return self.weight.shape[-1]


@dataclass(frozen=True)
class _Layout:
    """What a product showed of a parameter."""

    num: int
    inputs_first: bool


_TOKENS = 16
_KNOWN: WeakKeyDictionary[nn.Module, dict[str, _Layout | None]] = WeakKeyDictionary()
"""Network -> layout of each parameter that was looked for, None where no product used it: one pass a network."""


def plain_name(name: str) -> str:
    """The name that a parameter of an adapted network has in the plain one."""
    return name.replace(".base_layer", "")


def plain_weights(model: LanguageModel) -> Iterator[tuple[str, nn.Parameter]]:
    """Name and weight of every parameter of the transformers model, without an adapter's own; tied ones once."""
    for name, weight in model.base.named_parameters():
        if ".lora_" not in name:
            yield plain_name(name), weight


def block_matrices(model: LanguageModel) -> dict[str, WeightMatrix]:
    """The matrices of the decoder blocks by name in the plain network, in the model's order.

    Not among them: routers with a forward pass of their own, whose change would send tokens to other experts and which
    no quantizer rounds; biases, norms, convolutions, and whatever else no matrix product uses. A router that is an
    ordinary linear layer is one of the linear layers.
    """
    places = [place for place in _places(model) if place[2].ndim > 1]
    raw = {name: (module, weight) for name, module, weight in places if not _is_plain(module)}
    layouts = _layouts(model, raw) if raw else {}
    alike = {_kind(name, module, weight): layouts[name] for name, module, weight in places if layouts.get(name)}
    found = []
    for name, module, weight in places:
        layout = layouts.get(name) or alike.get(_kind(name, module, weight))  # no token may have come to an expert
        if layout is None and isinstance(module, nn.Linear | Conv1D):
            layout = _Layout(1, isinstance(module, Conv1D))
        if layout is not None:
            found.append(WeightMatrix(name, module, weight, layout.num, layout.inputs_first))
    experts = {(_block_of(model, matrix.name), matrix.num) for matrix in found if matrix.num > 1}
    return {matrix.name: matrix for matrix in found if not _is_router(model, matrix, experts)}


def share_of_blocks(model: LanguageModel, names: Iterable[str]) -> float:
    """Share of the weights of the decoder blocks that lie in some parameters, from 0 to 1.

    Args:
        model: any model; every parameter of its blocks counts, also norms, biases and routers.
        names: of parameters in the plain network; those outside the blocks are ignored.
    """
    sizes = {name: weight.numel() for name, _, weight in _places(model)}
    return sum(sizes[name] for name in {*names} & sizes.keys()) / sum(sizes.values())


def _places(model: LanguageModel) -> Iterator[tuple[str, nn.Module, nn.Parameter]]:
    """Plain name, module and value of every parameter of the blocks, without an adapter's own."""
    for prefix, block in model.blocks():
        for path, module in block.named_modules():
            for name, weight in module.named_parameters(recurse=False):
                full = ".".join(part for part in (prefix, path, name) if part)
                if ".lora_" not in full and weight.is_floating_point():
                    yield plain_name(full), module, weight


def _is_plain(module: nn.Module) -> bool:
    """Whether a module is a linear layer that does what linear layers do; some routers are one that does more."""
    return isinstance(module, nn.Linear | Conv1D) and type(module).forward in (nn.Linear.forward, Conv1D.forward)


def _kind(name: str, module: nn.Module, weight: nn.Parameter) -> tuple[type, str, torch.Size]:
    """What parameters of one use have in common."""
    return type(module), name.rpartition(".")[2], weight.shape


def _block_of(model: LanguageModel, name: str) -> str:
    return next(prefix for prefix, _ in model.blocks() if name.startswith(f"{prefix}."))


def _is_router(model: LanguageModel, matrix: WeightMatrix, experts: set[tuple[str, int]]) -> bool:
    """Whether it gives one number for each expert of its block, and is no ordinary linear layer."""
    own = matrix.num == 1 and not _is_plain(matrix.module)
    return own and (_block_of(model, matrix.name), matrix.num_outputs) in experts


def _layouts(model: LanguageModel, raw: Mapping[str, tuple[nn.Module, nn.Parameter]]) -> Mapping[str, _Layout | None]:
    """What one pass over a few tokens shows of the parameters that belong to no layer, given with their modules."""
    known = _KNOWN.setdefault(model.base, {})
    if not raw.keys() <= known.keys():
        ids = model.probe_ids(_TOKENS)
        products = _Products({name: weight for name, (_, weight) in raw.items()})
        plain = model.network.disable_adapter() if model.is_adapted else nullcontext()
        calls: dict[nn.Module, tuple[Any, Any]] = {}
        with model.evaluating(), torch.inference_mode(False), torch.no_grad(), plain, model.autocast(), products:
            with _noted_calls({module for module, _ in raw.values()}, calls):
                model.base(input_ids=ids, use_cache=False)
            for name, (module, weight) in raw.items():
                if name not in products.found and weight.ndim > 2 and module in calls:
                    _choose_first(module, *calls[module])
        known.update({name: products.found.get(name) for name in raw})
    return known


@contextmanager
def _noted_calls(modules: Iterable[nn.Module], calls: dict[nn.Module, tuple[Any, Any]]) -> Iterator[None]:
    """Keep what modules are called with while this block of code runs."""

    def note(module: nn.Module, args: Any, kwargs: Any) -> None:
        calls[module] = (args, kwargs)

    with ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_pre_hook(note, with_kwargs=True).remove)
        yield


def _choose_first(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    """Call experts once more with every token sent to the first of them: in the pass none may have come to any.

    Some models have experts that compute nothing (LongCat) and many more of them than of others.
    """

    def first(value: Any) -> Any:
        is_choice = isinstance(value, Tensor) and not value.is_floating_point() and value.dtype != torch.bool
        return torch.zeros_like(value) if is_choice else value

    with suppress(AttributeError, IndexError, RuntimeError, TypeError, ValueError):  # it then stays unknown
        module(*map(first, args), **{name: first(value) for name, value in kwargs.items()})


_OPERANDS = {
    torch.ops.aten.mm: (0, 1),
    torch.ops.aten.bmm: (0, 1),
    torch.ops.aten.addmm: (1, 2),
    torch.ops.aten.baddbmm: (1, 2),
    torch.ops.aten._grouped_mm: (0, 1),
    torch.ops.aten.mv: (0,),
}
"""Matrix products -> the places of their two operands: the first is summed over its last axis, the second over the one
before."""
_COPIES = (torch.ops.aten._to_copy, torch.ops.aten.clone, torch.ops.aten.index, torch.ops.aten.index_select)
"""What gives the same matrices in another dtype, or some of them."""


class _Products(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Records every matrix product with an operand that is a parameter, a part of one, or a copy of those."""

    def __init__(self, parameters: Mapping[str, nn.Parameter]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: dict[str, _Layout | None] = {}
        self._parameters = dict(parameters)
        self._names = {weight.untyped_storage().data_ptr(): name for name, weight in parameters.items()}
        self._copies: list[Tensor] = []  # kept alive, so that no other tensor takes their place

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        kind = func.overloadpacket
        places = _OPERANDS.get(kind, ())
        if str(kind).endswith("grouped_mm_fallback"):
            places = (0, 1)
        for axis, place in zip((-1, -2), places, strict=False):
            self._look(args[place], axis)
        if kind in _COPIES and isinstance(args[0], Tensor) and (name := self._name(args[0])) is not None:
            self._names[out.untyped_storage().data_ptr()] = name
            self._copies.append(out)
        return out

    def _name(self, tensor: Tensor) -> str | None:
        return self._names.get(tensor.untyped_storage().data_ptr())

    def _look(self, operand: Tensor, summed: int) -> None:
        name = self._name(operand)
        if name is None or operand.ndim < 2:
            return
        other = -3 - summed
        inputs, outputs = operand.shape[summed], operand.shape[other]
        strides = operand.stride()
        inputs_first = strides[other] == 1 if outputs > 1 else strides[summed] != 1
        inner, outer = (other, summed) if inputs_first else (summed, other)
        if strides[inner] != 1 and operand.shape[inner] > 1:
            layout = None
        else:
            whole = strides[outer] != operand.shape[inner]  # a part of each row: the rows are the parameter's own
            weight = self._parameters[name]
            size = weight.shape[-1] * weight.shape[-2] if whole else inputs * outputs
            layout = _Layout(weight.numel() // size, inputs_first) if weight.numel() % size == 0 else None
        if name in self.found and self.found[name] != layout:
            layout = None
        self.found[name] = layout
