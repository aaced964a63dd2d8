"""Passes in which transformers need not look for several sequences in one row."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import masking_utils

from expunge.data.batch import Batch

_LOOK = "find_packed_sequence_indices"


@contextmanager
def unpacked(batch: Batch) -> Iterator[None]:
    """Within this block of code a pass without a mask waits for no device.

    transformers would read from the position ids whether a row holds several sequences; ours never does.
    """
    look = getattr(masking_utils, _LOOK, None)
    if batch.attended is not None or look is None:
        yield
        return
    setattr(masking_utils, _LOOK, lambda position_ids: None)
    try:
        yield
    finally:
        setattr(masking_utils, _LOOK, look)
