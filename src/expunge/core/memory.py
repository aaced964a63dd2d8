"""Running out of memory: recognise it, whatever library reports it, and tell the user what to change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from expunge.core.errors import ExpungeError

_WORDS = (
    "out of memory",
    "can't allocate memory",
    "cannot allocate memory",
    "unable to allocate",
    "status_alloc_failed",
    "memory allocation failed",
)
"""Messages of CUDA, MPS, CPU allocators, cuBLAS and numpy."""


class MemoryExhausted(ExpungeError):
    """There was not enough memory, and a smaller batch would not help or was not possible."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error means that an allocation failed, on any device."""
    if isinstance(error, MemoryError | MemoryExhausted):
        return True
    return isinstance(error, RuntimeError | OSError) and any(words in str(error).lower() for words in _WORDS)


@contextmanager
def memory_errors(message: str) -> Iterator[None]:
    """Turn a failed allocation within this block into one line; an earlier such line stays as it is.

    Args:
        message: the failed activity, and what the user can change.

    Raises:
        MemoryExhausted: instead of the error.
    """
    failed = None
    try:
        yield
    except MemoryExhausted:
        raise
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        failed = MemoryExhausted(message)
    if failed is not None:
        raise failed  # outside of the handler: the first error's frames hold the tensors that did not fit
