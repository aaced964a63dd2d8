"""Batches as large as the memory of the device allows, and smaller ones when it runs out."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal, TypeVar

import psutil
import torch

from expunge.core.memory import MemoryExhausted, is_out_of_memory
from expunge.data.batch import by_length

Result = TypeVar("Result")
Pass = Literal["score", "states", "generate", "draft", "layers", "vocabulary", "patch", "gradient"]
"""score: logits at the labels. states: no logits. generate, draft: with a cache of keys and values. layers: the
outputs of all blocks. vocabulary: several numbers for each token of the vocabulary. patch: many variants of one row.
gradient: a pass back as well, for which all that blocks compute is kept."""

TOKENS: dict[Pass, int] = {
    "score": 4096,
    "states": 4096,
    "generate": 8192,
    "draft": 4096,
    "layers": 1024,
    "vocabulary": 1024,
    "patch": 2048,
    "gradient": 4096,
}
"""Padded tokens of a batch where memory is not short: more would not be faster on a processor."""
_SHARE = 0.5
"""Of the free memory that one batch may take by estimate."""
_LARGER = 4
"""How many times as large a batch may be on a CUDA device that has the room."""
_FEWEST = 64
"""Tokens below which no estimate reduces a batch; only a failed allocation does."""


class Budget:
    """How many padded tokens the batches of one network may hold.

    The budget is a power of two times the figure in `TOKENS`, so that small variations of free memory do not change how
    rows are batched. A failed allocation halves it for good.

    Args:
        config: the network's configuration, as transformers has it.
        itemsize: bytes of a number in a forward pass.
    """

    def __init__(self, config: Any, itemsize: int = 4) -> None:
        text = config.get_text_config() if hasattr(config, "get_text_config") else config
        width = int(getattr(text, "hidden_size", None) or 1024)
        inner = getattr(text, "intermediate_size", None)
        blocks = int(getattr(text, "num_hidden_layers", None) or 32)
        heads = int(getattr(text, "num_attention_heads", None) or 1)
        key_heads = int(getattr(text, "num_key_value_heads", None) or heads)
        self._vocabulary = int(getattr(text, "vocab_size", None) or 32000)
        self._hidden = itemsize * (8 * width + 3 * (int(inner) if isinstance(inner, int) else 4 * width))
        self._cached = itemsize * 2 * blocks * width * key_heads // heads
        self._layers = itemsize * 4 * blocks * width
        self._graph = 2 * blocks * self._hidden
        self.halvings = 0

    def bytes_per_token(self, kind: Pass) -> int:
        """An estimate of what a token of a batch takes at the peak of a pass, besides the weights."""
        logits, cache = self._vocabulary * 4, 3 * self._cached
        more = {
            "score": 3 * logits,
            "vocabulary": 6 * logits,
            "generate": cache,
            "draft": cache,
            "layers": self._layers,
            "gradient": 3 * logits + self._graph,
        }
        return self._hidden + more.get(kind, 0)

    def tokens(self, kind: Pass, device: torch.device, most: int | None = None) -> int:
        """Padded tokens of a batch now.

        Args:
            kind: of pass.
            device: where it runs.
            most: the user's own limit instead of the figure in `TOKENS`; it is never exceeded.
        """
        size = TOKENS[kind] if most is None else most
        room = _SHARE * free_memory(device) / self.bytes_per_token(kind)
        larger = _LARGER if device.type == "cuda" and most is None else 1
        while larger > 1 and size * larger > room:
            larger //= 2
        size *= larger
        while size > max(room, _FEWEST):
            size //= 2
        return max(1, size >> self.halvings)

    def halve(self, size: int, kind: Pass, device: torch.device, most: int | None = None) -> int:
        """The budget after a batch of this one failed."""
        self.halvings += 1
        return max(1, min(size // 2, self.tokens(kind, device, most)))


def in_batches(
    budget: Budget,
    device: torch.device,
    kind: Pass,
    lengths: Sequence[int],
    work: Callable[[list[int], int], None],
    *,
    most: int | None = None,
    context: int = 0,
    enough: int | None = None,
) -> None:
    """Call `work` for all sequences in batches of similar length, and in smaller ones when memory runs out.

    Args:
        budget: of the network; it keeps the smaller size.
        device: where it runs.
        kind: of pass.
        lengths: of the sequences, in tokens.
        work: called with the indices of a batch's sequences and its budget of tokens. Called again for the same ones
            if it runs out of memory, so it must keep nothing before it is done.
        most: as in `Budget.tokens`.
        context: as in `by_length`.
        enough: as in `by_length`.

    Raises:
        MemoryExhausted: a single sequence does not fit.
    """
    size = budget.tokens(kind, device, most)
    todo = by_length(lengths, size, context=context, enough=enough)[::-1]
    while todo:
        places = todo.pop()
        try:
            work(places, size)
            continue
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        # Outside of the handler: the error's frames held the tensors that did not fit.
        free_cached(device)
        if len(places) == 1 and size <= context + lengths[places[0]]:
            raise _does_not_fit(f"one sequence of {context + lengths[places[0]]} tokens", device)
        size = budget.halve(size, kind, device, most)
        rest = [*places, *(place for batch in todo for place in batch)]
        again = by_length([lengths[place] for place in rest], size, context=context, enough=enough)
        todo = [[rest[index] for index in batch] for batch in again][::-1]


def shrinking(
    budget: Budget, device: torch.device, kind: Pass, work: Callable[[int], Result], most: int | None = None
) -> Result:
    """Call `work` with a budget of tokens, and again with a smaller one when memory runs out.

    For work whose parts are not sequences, or belong together.

    Args:
        budget: of the network; it keeps the smaller size.
        device: where it runs.
        kind: of pass.
        work: called with its budget; called again from its start if it runs out of memory.
        most: as in `Budget.tokens`.

    Raises:
        MemoryExhausted: a budget of one token is too much.
    """
    size = budget.tokens(kind, device, most)
    while True:
        try:
            return work(size)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        free_cached(device)
        if size == 1:
            raise _does_not_fit("a pass over a single row", device)
        size = budget.halve(size, kind, device, most)


def _does_not_fit(what: str, device: torch.device) -> MemoryExhausted:
    return MemoryExhausted(
        f"out of memory: {what} does not fit on {device}; use shorter texts, a smaller or quantized model, or a device "
        "with more memory"
    )


def free_memory(device: torch.device) -> float:
    """Bytes that can still be allocated on a device; infinity if unknown."""
    if device.type == "cuda" and torch.cuda.is_available():
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + unused)
    if device.type == "mps" and torch.backends.mps.is_available():
        return float(torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return min(float(psutil.virtual_memory().available), _limit())


def free_cached(device: torch.device) -> None:
    """Release cached memory of a device's allocator: to the device, on Linux CPUs to the system."""
    if device.type == "cuda" and torch.cuda.is_available():
        torch.cuda.empty_cache()
    elif device.type == "mps" and torch.backends.mps.is_available():
        torch.mps.empty_cache()
    elif device.type == "cpu" and sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library than glibc
            ctypes.CDLL("libc.so.6").malloc_trim(0)


def _limit() -> float:
    """Bytes up to the limit of the container that this process runs in."""
    try:
        group = Path("/sys/fs/cgroup")
        limit, used = ((group / name).read_text(encoding="ascii").strip() for name in ("memory.max", "memory.current"))
        return float(limit) - float(used)
    except (OSError, ValueError):  # none, or "max"
        return float("inf")
