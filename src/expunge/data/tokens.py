"""Token ids of a text, the tokens that a tokenizer adds in front, and the position of each token in the text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expunge.core.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROBE = "expunge"


def bare_ids(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    """Ids of a text, without what the tokenizer adds around it."""
    return list(tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"])


def front_ids(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Special tokens that a tokenizer writes in front of a text; what it would append never belongs to a prompt."""
    bare = bare_ids(tokenizer, _PROBE)
    whole = list(tokenizer(_PROBE, add_special_tokens=True, verbose=False)["input_ids"])
    starts = (place for place in range(len(whole) - len(bare) + 1) if whole[place : place + len(bare)] == bare)
    return whole[: next(starts, 0)]


def offsets(tokenizer: PreTrainedTokenizerBase, text: str) -> list[tuple[int, int]]:
    """Where each token of a text begins and ends in it.

    Raises:
        UserError: a slow tokenizer, which cannot tell.
    """
    if not getattr(tokenizer, "is_fast", True):
        raise UserError(
            "model: documents and evaluate.reference_tokens need a fast tokenizer (tokenizer.json), "
            f"and this model's {type(tokenizer).__name__} is a slow one"
        )
    encoded = tokenizer(text, return_offsets_mapping=True, add_special_tokens=False, verbose=False)
    return [(int(start), int(end)) for start, end in encoded["offset_mapping"]]
