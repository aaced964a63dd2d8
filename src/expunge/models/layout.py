"""The decoder, blocks and head of a network, found by observing one forward pass rather than by their names.

Architectures give these parts any name, wrap them in vision models, and scale or soft-cap their logits by options of
any name. A pass over a few tokens is alike in all of them: one module returns the final hidden states, the modules of a
list pass hidden states from each to the next, and one matrix maps the final states to logits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.utils.generic import ModelOutput

from expunge.core.errors import UserError
from expunge.models.hooks import entered_states, given_states


@dataclass(frozen=True)
class NetworkLayout:
    """The parts of one network; names are those of modules in the transformers model."""

    decoder: str
    """The module that maps token ids to final hidden states."""
    blocks: str
    """The list of decoder blocks."""
    width: int
    """D, the size of what a block gives for each token; the final hidden states may be narrower (OPT-350M)."""
    one_vector: bool
    """Whether a block returns one vector of that size for each token."""
    extras: tuple[int | None, ...]
    """For each block the number of values that it returns besides its states; None if it returns no tuple."""
    context: int | None
    """Size of a table of learned positions; None without one."""
    plain_head: bool
    """Whether logits are the product of final hidden states and the output matrix, and nothing else."""
    given: ModelOutput = field(compare=False)
    """The decoder's output, for the model's own code after it."""


@torch.no_grad()
def find_layout(base: Any, ids: Tensor) -> tuple[NetworkLayout, Tensor, Tensor]:
    """Observe a forward pass over a few tokens.

    Args:
        base: a transformers model with an output matrix.
        ids: (1, T) tokens that are no consecutive numbers.

    Returns:
        The layout; (1, T, D) final hidden states; (1, T, V) logits.

    Raises:
        UserError: the network has no such parts, or cannot read tokens alone.
    """
    kind = type(base).__name__
    matrix = base.get_output_embeddings()
    if matrix is None:
        raise UserError(f"model: {kind} has no output matrix that makes logits of hidden states; give a causal LM")
    lists = {name: module for name, module in base.named_modules() if isinstance(module, nn.ModuleList) and len(module)}
    watch = _Watch(base, matrix, lists)
    tables = _PositionTables(base, ids)
    try:
        with watch.on(), tables:
            output = base(input_ids=ids, use_cache=False)
        logits = output.logits
    except (MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # a model's own code raises anything
        reason = (str(error).splitlines() or [""])[0][:200]
        raise UserError(
            f"model: {kind} cannot read text alone ({type(error).__name__}: {reason}); give a causal LM"
        ) from None
    if not isinstance(logits, Tensor) or logits.shape[:-1] != ids.shape:
        raise UserError(f"model: {kind} does not give logits for every token of a text; give a causal LM")
    if not watch.decoders:
        raise UserError(f"model: no part of {kind} maps token ids to final hidden states; give a causal LM")
    decoder, given = watch.decoders[-1]  # the outermost ends last
    hidden = given["last_hidden_state"]
    blocks = next((name for name in lists if watch.is_chain(name)), None)
    if blocks is None:
        raise UserError(
            f"model: cannot find the decoder blocks of {kind}, each of which runs once, on the output of the "
            f"one before; lists of modules in it: {', '.join(lists) or 'none'}"
        )
    last = watch.given[blocks][-1]
    widths = hidden.shape[-1], getattr(base.config.get_text_config(), "hidden_size", None)
    layout = NetworkLayout(
        decoder=decoder,
        blocks=blocks,
        width=last.shape[-1],
        one_vector=last.shape[:-1] == hidden.shape[:-1] and last.shape[-1] in widths,
        extras=tuple(watch.extras[blocks]),
        context=min(tables.sizes, default=None),
        plain_head=watch.reads(hidden) and watch.writes(logits),
        given=type(given)(last_hidden_state=hidden[:, :0]),
    )
    return layout, hidden, logits


@contextmanager
def replaced_module(root: nn.Module, old: nn.Module, new: nn.Module) -> Iterator[None]:
    """Replace one module by another everywhere within this block of code."""
    homes = [(home, name) for home in root.modules() for name, child in home.named_children() if child is old]
    try:
        for home, name in homes:
            setattr(home, name, new)
        yield
    finally:
        for home, name in homes:
            setattr(home, name, old)


class _Watch:
    """Inputs and outputs of the parts of a network in one pass."""

    def __init__(self, base: nn.Module, matrix: nn.Module, lists: dict[str, nn.ModuleList]) -> None:
        self._base = base
        self._matrix = matrix
        self._lists = lists
        self.decoders: list[tuple[str, ModelOutput]] = []
        """Modules that gave final hidden states, in the order in which they ended."""
        self.got: dict[str, list[Tensor]] = {name: [] for name in lists}
        self.given: dict[str, list[Tensor]] = {name: [] for name in lists}
        self.extras: dict[str, list[int | None]] = {name: [] for name in lists}
        self._order: dict[str, list[int]] = {name: [] for name in lists}
        self._read: list[Tensor] = []
        self._written: list[Tensor] = []

    @contextmanager
    def on(self) -> Iterator[None]:
        with ExitStack() as stack:
            for name, module in self._base.named_modules():
                if module is not self._base:
                    stack.callback(module.register_forward_hook(self._decoder(name)).remove)
            for name, items in self._lists.items():
                for place, item in enumerate(items):
                    hook = self._item(name, place)
                    stack.callback(item.register_forward_hook(hook, with_kwargs=True).remove)
            stack.callback(self._matrix.register_forward_hook(self._product).remove)
            yield

    def is_chain(self, name: str) -> bool:
        """Whether the modules of a list ran once each, in order, each on what the one before gave."""
        got, given = self.got[name], self.given[name]
        if not given or self._order[name] != list(range(len(self._lists[name]))) or len(got) != len(given):
            return False
        return all(_same(before, after) for before, after in zip(given, got[1:], strict=False))

    def reads(self, hidden: Tensor) -> bool:
        """Whether the output matrix was applied once, to these states."""
        return len(self._read) == 1 and _same(self._read[0], hidden)

    def writes(self, logits: Tensor) -> bool:
        """Whether its products are the logits."""
        return len(self._written) == 1 and _same(self._written[0], logits)

    def _decoder(self, name: str) -> Callable[..., None]:
        def hook(_: nn.Module, __: Any, output: Any) -> None:
            if isinstance(output, ModelOutput) and isinstance(output.get("last_hidden_state"), Tensor):
                self.decoders.append((name, output))

        return hook

    def _item(self, name: str, place: int) -> Callable[..., None]:
        def hook(_: nn.Module, arguments: Sequence[Any], options: dict[str, Any], output: Any) -> None:
            self._order[name].append(place)
            got, given = entered_states(arguments, options), given_states(output)
            if got is not None and given is not None:
                self.got[name].append(got)
                self.given[name].append(given)
                self.extras[name].append(None if isinstance(output, Tensor) else len(output) - 1)

        return hook

    def _product(self, _: nn.Module, arguments: Sequence[Any], output: Any) -> None:
        if arguments and isinstance(arguments[0], Tensor) and isinstance(output, Tensor):
            self._read.append(arguments[0])
            self._written.append(output)


class _PositionTables(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Sizes of the tables in which a pass looks up consecutive positions, less the entries that are skipped."""

    def __init__(self, base: nn.Module, ids: Tensor) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._ids = ids
        self._weights = {parameter.data_ptr() for parameter in base.parameters()}
        self.sizes: list[int] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten.embedding.default:
            table, places = args[:2]
            if places.numel() == self._ids.numel() and table.data_ptr() in self._weights:
                row = places.flatten().long()
                if torch.equal(row, torch.arange(len(row), device=row.device) + row[0]):
                    self.sizes.append(table.shape[0] - int(row[0]))
        return func(*args, **(kwargs or {}))


def _same(first: Tensor, second: Tensor) -> bool:
    return first is second or (first.shape == second.shape and torch.equal(first.float(), second.float()))
