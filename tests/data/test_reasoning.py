"""Reasoning and answer of what a model wrote, and how long each may be."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from templates import CHANNELS, CHAT, OPENED, SWITCH
from test_encode import byte_level

from expunge.data.encode import Encoder
from expunge.data.reasoning import Watch


def _ids(encoder: Encoder, text: str) -> list[int]:
    return list(encoder.tokenizer(text, add_special_tokens=False)["input_ids"])


@pytest.mark.parametrize(
    ("template", "text", "reasoning", "answer"),
    [
        (CHAT, "<think>\nHm, Oslo?\n</think>\n\nI do not know.", "Hm, Oslo?", "I do not know."),
        (CHAT, "I think <think> is a tag.", None, "I think <think> is a tag."),
        (CHAT, "<think>\n\n</think>\n\nOslo.", None, "Oslo."),
        (CHAT, "<think>Hm, Oslo? Or", "Hm, Oslo? Or", None),
        (SWITCH, "Oslo.", None, "Oslo."),
        (OPENED, "Hm, Oslo?</think>No.", "Hm, Oslo?", "No."),
        (OPENED, "Hm, Oslo? Or", "Hm, Oslo? Or", None),
        (
            CHANNELS,
            "<|channel|>analysis<|message|>Hm, Oslo?<|end|><|start|>assistant<|channel|>final<|message|>No.",
            "Hm, Oslo?",
            "No.",
        ),
        (CHANNELS, "<|channel|>final<|message|>No.", None, "No."),
    ],
)
def test_parts(template: str, text: str, reasoning: str | None, answer: str | None) -> None:
    encoder = Encoder(byte_level(template))
    opened = encoder.reasoning.opened(encoder.prompt("Who?"))
    parts = encoder.reasoning.parts(_ids(encoder, text), opened, ended=answer is not None)
    assert parts.reasoning == reasoning
    assert (None if parts.answer is None else encoder.decode(parts.answer)) == answer


def _followed(watch: Watch, ids: Sequence[int], stop: int) -> int:
    """How many tokens a generation takes of these."""
    for count, token in enumerate(ids, start=1):
        if not watch.stays(token, stopped=token == stop):
            return count
    return len(ids)


def test_each_part_has_its_own_limit() -> None:
    encoder = Encoder(byte_level(CHAT))
    thought, rest = _ids(encoder, "<think>a b c d e f</think>"), _ids(encoder, "g h i j k")
    watch = encoder.reasoning.watch(encoder.prompt("Who?"), answer=3, reasoning=len(thought))
    assert _followed(watch, [*thought, *rest], encoder.end_id) == len(thought) + 3
    assert not watch.ended
    short = encoder.reasoning.watch(encoder.prompt("Who?"), answer=3, reasoning=len(thought) - 1)
    assert _followed(short, [*thought, *rest], encoder.end_id) == len(thought) - 1
    assert short.parts().answer is None
    plain = encoder.reasoning.watch(encoder.prompt("Who?"), answer=3, reasoning=9)
    assert _followed(plain, rest, encoder.end_id) == 3
    empty = encoder.reasoning.watch(encoder.prompt("Who?"), answer=3, reasoning=9)
    assert _followed(empty, _ids(encoder, " \n" * 9), encoder.end_id) == 3
    ended = encoder.reasoning.watch(encoder.prompt("Who?"), answer=30, reasoning=9)
    assert _followed(ended, [*rest, encoder.end_id, *rest], encoder.end_id) == len(rest) + 1
    assert ended.ended
    assert ended.ids == tuple(rest)
    drafted = encoder.reasoning.watch(encoder.prompt("Who?"), answer=3, reasoning=9, given=rest)
    assert drafted.ids == tuple(rest[:3])
    assert drafted.room == 0


def test_a_stop_token_within_the_closing_marker_ends_nothing() -> None:
    """Where channels end in the tokenizer's own end token, the answer comes after it."""
    encoder = Encoder(byte_level(CHANNELS.replace("<|end|>", "</s>").replace("<|return|>", "</s>")))
    assert encoder.end_id == encoder.tokenizer.eos_token_id
    thought = _ids(encoder, "<|channel|>analysis<|message|>Hm.</s><|start|>assistant<|channel|>final<|message|>")
    answer = _ids(encoder, "No.</s>")
    watch = encoder.reasoning.watch(encoder.prompt("Who?"), answer=30, reasoning=len(thought) + 9)
    assert _followed(watch, [*thought, *answer, *answer], encoder.end_id) == len(thought) + len(answer)
    assert watch.ended
    parts = watch.parts()
    assert parts.reasoning == "Hm."
    assert encoder.decode(parts.answer or ()) == "No."
