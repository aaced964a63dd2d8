"""What tokenizers add around a text."""

from __future__ import annotations

import pytest
from templates import CHAT
from test_encode import TEXTS, byte_level
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from expunge.core.errors import UserError
from expunge.data.encode import Encoder
from expunge.data.example import Example
from expunge.data.tokens import offsets


def both_ends() -> PreTrainedTokenizerFast:
    """A tokenizer that writes its beginning token and appends its end token."""
    tokenizer = byte_level(CHAT)
    ends = [(token, tokenizer.convert_tokens_to_ids(token)) for token in ("<s>", "</s>")]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=ends
    )
    assert tokenizer("a")["input_ids"][-1] == tokenizer.eos_token_id
    return tokenizer


@pytest.mark.parametrize(
    "row",
    [
        Example("q", "Who?", "I."),
        Example("p", prompt="Who?", answer="I."),
        Example("b", prompt="<s>Who?", answer="I."),
        Example("e", "Who?", "I.</s>"),
        Example("t", text=TEXTS[0]),
    ],
    ids=lambda row: row.id,
)
def test_special_tokens_stand_in_front_only(row: Example) -> None:
    """One beginning token; no end token but the one that closes an answer."""
    tokenizer = both_ends()
    encoder = Encoder(tokenizer, "plain")
    ids = encoder.example(row).ids
    assert ids.count(tokenizer.bos_token_id) == 1
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.eos_token_id) == (0 if row.text else 1)
    assert tokenizer.eos_token_id not in encoder.asked(row)


def test_slow_tokenizers_are_named() -> None:
    class Slow:
        is_fast = False

    with pytest.raises(UserError, match=r"need a fast tokenizer .*Slow is a slow one"):
        offsets(Slow(), "a")  # type: ignore[arg-type]
