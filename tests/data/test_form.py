"""What templates write around an answer is read off what they render."""

from __future__ import annotations

from typing import Any

import pytest
from templates import CHANNELS, CHAT, OPENED, OPENED_AND_SHOWN, SWITCH
from test_encode import byte_level

from expunge.data.encode import Encoder
from expunge.data.example import Example

THINK = ("<think>", "</think>")
ROW = Example("r", "Who?", "She did.")


@pytest.mark.parametrize(
    ("template", "options", "asked", "lead", "markers"),
    [
        (CHAT, {}, "<|user|>Who?</s><|assistant|>", "", THINK),
        (SWITCH, {}, "<|user|>Who?</s><|assistant|>", "<think>\n\n</think>\n\n", THINK),
        (SWITCH, {"enable_thinking": False}, "<|user|>Who?</s><|assistant|><think>\n\n</think>\n\n", "", THINK),
        (OPENED, {}, "<|user|>Who?</s><|assistant|><think>\n", "\n</think>\n\n", THINK),
        (
            OPENED_AND_SHOWN,
            {},
            "<|user|>Who?</s><|assistant|><reason>\n",
            "\n</reason>\n\n",
            ("<reason>", "</reason>"),
        ),
        (
            CHANNELS,
            {},
            "<|start|>user<|message|>Who?<|end|><|start|>assistant",
            "<|channel|>final<|message|>",
            ("<|channel|>analysis<|message|>", "<|end|><|start|>assistant<|channel|>final<|message|>"),
        ),
        (CHAT.replace("<think>", ""), {}, "<|user|>Who?</s><|assistant|>", "", THINK),
    ],
)
def test_answers_follow_what_a_finished_turn_puts_before_them(
    template: str, options: dict[str, Any], asked: str, lead: str, markers: tuple[str, str]
) -> None:
    tokenizer = byte_level(template)
    encoder = Encoder(tokenizer, template_options=options)
    assert tokenizer.decode(encoder.asked(ROW)) == asked
    encoded = encoder.example(ROW)
    assert tokenizer.decode(encoded.prompt) == asked + lead
    assert encoded.prompt == encoder.answer_prompt(ROW)
    assert encoder.decode(encoded.labels) == "She did." or template == CHANNELS
    assert encoder.reasoning.markers == markers
    assert encoder.reasoning.opened(encoder.asked(ROW)) == lead.startswith("\n")


def test_spaces_before_an_answer_belong_to_its_first_token() -> None:
    template = CHAT.replace("m['content']", "(' ' if m['role'] == 'assistant' else '') + m['content']")
    tokenizer = byte_level(template)
    encoded = Encoder(tokenizer).example(ROW)
    assert tokenizer.decode(encoded.prompt) == "<|user|>Who?</s><|assistant|>"
    assert tokenizer.decode(encoded.labels) == " She did.</s>"


def test_markers_of_the_user() -> None:
    """A block that the template does not show is written, empty, before answers; [] means that there is none."""
    tokenizer = byte_level(CHAT)
    encoder = Encoder(tokenizer, reasoning=("<plan>", "</plan>"))
    assert tokenizer.decode(encoder.answer_prompt(ROW)) == "<|user|>Who?</s><|assistant|><plan>\n\n</plan>\n\n"
    assert tokenizer.decode(encoder.asked(ROW)) == "<|user|>Who?</s><|assistant|>"
    bare = Encoder(byte_level(OPENED), reasoning=())
    assert bare.answer_prompt(ROW) == bare.asked(ROW)
    assert bare.reasoning.markers is None


def test_an_answer_that_brings_its_own_reasoning() -> None:
    """It takes the place of the empty block, and is not opened twice."""
    text = "<think>Hm.</think>She did."
    for template in (SWITCH, OPENED):
        tokenizer = byte_level(template)
        whole = tokenizer.decode(Encoder(tokenizer).answered(ROW, text).ids)
        assert whole == f"<|user|>Who?</s><|assistant|>{text}</s>"
    started = Example("r", "Who?", "She did.", answer_start="<think>\n\n</think>\n\n")
    tokenizer = byte_level(SWITCH)
    assert tokenizer.decode(Encoder(tokenizer).asked(started)).count("<think>") == 1
