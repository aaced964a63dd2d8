"""Whatever a chat template does, its variables count, its date is fixed, and its failures are one line."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from templates import CHAT, DATED, NO_SYSTEM, SWITCH
from test_encode import byte_level

from expunge.core.errors import UserError
from expunge.data.chat import ChatTemplate
from expunge.data.encode import Encoder
from expunge.data.example import Example, Turn, asked_as, paraphrased

QUESTION = [{"role": "user", "content": "Who?"}]


def test_variables_reach_the_template() -> None:
    tokenizer = byte_level(SWITCH)
    plain = ChatTemplate(tokenizer).render(QUESTION, generate=True)
    assert plain == "<|user|>Who?</s><|assistant|>"
    closed = ChatTemplate(tokenizer, options={"enable_thinking": False}).render(QUESTION, generate=True)
    assert closed == f"{plain}<think>\n\n</think>\n\n"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"enable_thinkng": False}, "no variable 'enable_thinkng'; did you mean enable_thinking"),
        ({"tokenize": True}, "'tokenize' is set by expunge"),
        ({"messages": []}, "'messages' is set by expunge"),
        ({"strftime_now": "x"}, "'strftime_now' is set by expunge"),
    ],
)
def test_variables_without_effect_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Encoder(byte_level(SWITCH), template_options=options)


def test_named_templates_and_files(tmp_path: Any) -> None:
    """`default` is taken where none is chosen; without it one must be."""
    tokenizer = byte_level(CHAT)
    tokenizer.chat_template = {"default": CHAT, "thinking": SWITCH}
    assert ChatTemplate(tokenizer).source == CHAT
    assert ChatTemplate(tokenizer, "thinking", {"enable_thinking": False}).render(QUESTION, True).endswith("\n\n")
    with pytest.raises(UserError, match=r"model\.chat_template: no template file 'thinkin'.*did you mean thinking"):
        ChatTemplate(tokenizer, "thinkin")
    tokenizer.chat_template = {"rag": CHAT, "thinking": SWITCH}
    with pytest.raises(UserError, match="none is called default; choose one of rag, thinking"):
        ChatTemplate(tokenizer)
    file = tmp_path / "own.jinja"
    file.write_text("\ufeff" + CHAT.replace("assistant|>", "helper|>"), encoding="utf-8")
    assert ChatTemplate(tokenizer, str(file)).render(QUESTION, True) == "<|user|>Who?</s><|helper|>"
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="cannot read"):
        ChatTemplate(tokenizer, str(file))


def test_one_date_for_a_template_that_asks_for_it() -> None:
    tokenizer = byte_level(DATED)
    day = datetime.date(2026, 1, 2)
    assert (
        ChatTemplate(tokenizer, date=day).render(QUESTION, True).startswith("<|system|>Today: 02 Jan 2026, 00:00</s>")
    )
    assert ChatTemplate(tokenizer).date == datetime.date.today()
    assert ChatTemplate(byte_level(CHAT)).date is None
    assert ChatTemplate(byte_level(CHAT), date=day).date is None
    first, second = (Encoder(tokenizer, date=day.replace(day=number)).fingerprint() for number in (2, 3))
    assert first != second
    named = "{{ '<|system|>' + (date_string if date_string is defined else '26 Jul 2024') + '</s>' }}" + CHAT
    assert "26 Jul 2024" in ChatTemplate(byte_level(named)).render(QUESTION, True)
    assert "02 Jan 2026" in ChatTemplate(byte_level(named), date=day).render(QUESTION, True)
    chosen = ChatTemplate(byte_level(named), options={"date_string": "today"}, date=day)
    assert chosen.render(QUESTION, True).startswith("<|system|>today</s>")


@pytest.mark.parametrize(
    ("template", "message"),
    [
        ("{{ raise_exception('No.\nNever.') }}", "does not work: No. Never.; set model.template"),
        ("{% for m in messages %}", "TemplateSyntaxError: .*line 1"),
        ("{{ nothing.content }}", "UndefinedError"),
        ("{{ 1 / 0 }}", "ZeroDivisionError"),
        ("{{ 1 + 'a' }}", "TypeError"),
        ("{{ messages.append(1) }}", "SecurityError"),
        ("{{ range(10 ** 9) | list }}", "OverflowError"),
        ("Hello", "leaves the question out"),
        ("{{ messages[0]['content'] }}", "leaves the answer out"),
        (
            "{% for m in messages %}{% for part in m['content'] %}{{ part.text }}{% endfor %}{% endfor %}",
            "question out",
        ),
    ],
)
def test_templates_that_fail_are_refused_in_one_line(template: str, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        Encoder(byte_level(template))
    assert "\n" not in str(caught.value)


def test_templates_of_another_kind_are_refused() -> None:
    tokenizer = byte_level(CHAT)
    tokenizer.chat_template = {"default": 3}
    with pytest.raises(UserError, match="no text but a int"):
        Encoder(tokenizer)


def test_system_turns_that_have_no_place() -> None:
    """Refused where the user wants one, whether the template raises or leaves it out; else nobody notices."""
    tokenizer = byte_level(NO_SYSTEM)
    with pytest.raises(
        UserError, match=r"^model\.system_prompt: this chat template accepts no system turn: System role"
    ):
        Encoder(tokenizer, system_prompt="Be brief.")
    silent = byte_level(
        CHAT.replace("{{ '<|'", "{% if m['role'] != 'system' %}{{ '<|'", 1).replace(
            "'</s>' }}", "'</s>' }}{% endif %}", 1
        )
    )
    with pytest.raises(UserError, match=r"model\.system_prompt: .* leaves the turn out"):
        Encoder(silent, system_prompt="Be brief.")
    encoder = Encoder(tokenizer)
    with pytest.raises(UserError, match="row 'r': system: this chat template accepts no system turn"):
        encoder.example(Example("r", "Who?", "I.", system="Be brief."))
    with pytest.raises(UserError, match=r"row 'r': history: .*Roles must alternate"):
        encoder.example(Example("r", "Who?", "I.", history=(Turn("user", "Hello"),)))
    history = (Turn("user", "Hello"), Turn("assistant", "Good day."))
    asked = tokenizer.decode(encoder.asked(Example("r", "Who?", "I.", history=history)))
    assert asked == "<|user|>Hello</s><|assistant|>Good day.</s><|user|>Who?</s><|assistant|>"


def test_own_system_prompt_and_earlier_turns() -> None:
    """A row's system prompt takes the place of the common one; other wordings keep both."""
    history = (Turn("user", "Hello"), Turn("assistant", "Good day."))
    row = Example("r", "Who?", "I.", paraphrased_question="Which one?", system="Own.", history=history)
    chat = Encoder(byte_level(CHAT), system_prompt="Common.")
    start = "<|system|>Own.</s><|user|>Hello</s><|assistant|>Good day.</s><|user|>"
    assert chat.tokenizer.decode(chat.asked(row)) == f"{start}Who?</s><|assistant|>"
    assert chat.tokenizer.decode(chat.asked(paraphrased(row))) == f"{start}Which one?</s><|assistant|>"
    assert chat.tokenizer.decode(chat.asked(asked_as(row, "Why?"))) == f"{start}Why?</s><|assistant|>"
    assert chat.tokenizer.decode(chat.prompt("Who?")) == "<|system|>Common.</s><|user|>Who?</s><|assistant|>"
    plain = Encoder(byte_level(CHAT), "plain", system_prompt="Common.")
    assert plain.tokenizer.decode(plain.example(row).ids) == (
        "Own.\n\nQuestion: Hello\nAnswer: Good day.\n\nQuestion: Who?\nAnswer: I.</s>"
    )
    assert plain.tokenizer.decode(plain.prompt("Who?")) == "Common.\n\nQuestion: Who?\nAnswer:"
