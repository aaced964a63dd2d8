"""The text that a layout writes around an answer, found with probe conversations.

No list of models is needed: a template may leave a reasoning block open at the generation prompt, close an empty one
before a finished answer, or write a trace that a message carries in a field of its own. A stored answer is trained and
scored after the block.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from expunge.core.errors import UserError
from expunge.data.chat import CannotRender, ChatLayout, Message

Markers = tuple[str, str]
"""What opens and what closes a reasoning block."""

USUAL: Markers = ("<think>", "</think>")
"""Taken where a layout shows no block: a text that begins with the first of them begins with its reasoning."""

_FIELDS = ("reasoning_content", "thinking", "reasoning")
"""What messages call a reasoning trace, as chat templates read it."""
_QUESTION, _ANSWER, _TRACE, _SYSTEM = "expunge-question", "expunge-answer", "expunge-trace", "expunge-system"
_TAG = r"(?:<[^<>\s]+>|\[[^\[\]\s]+\]|\{[^{}\s]+\}|◁[^◁▷\s]+▷)"
_PAIR = re.compile(rf"({_TAG})\s*({_TAG})")
_LAST_TAG = re.compile(rf"({_TAG})\s*$")
_THOUGHT = re.compile("think|thought|reason", re.IGNORECASE)
_ENDINGS = (("START", "END"), ("start", "end"), ("BEGIN", "END"), ("begin", "end"), ("prefix", "suffix"))


@dataclass(frozen=True)
class Form:
    """What a layout writes around an answer."""

    lead: str
    """Between the generation prompt and the answer, e.g. an empty reasoning block; ends in no space."""
    space: str
    """Spaces right before the answer, which belong to its first token."""
    tail: str
    """After the answer."""
    markers: Markers | None
    """Opening and closing marker of a reasoning block; None if nothing counts as reasoning."""


def checked_form(
    layout: ChatLayout, system_prompt: str | None = None, markers: Sequence[str] | None = None, source: str = ""
) -> Form:
    """The form of a layout that can write a question with its answer, and a system turn if there is one.

    Args:
        layout: how conversations are written.
        system_prompt: text of the system turn, if the user wants one.
        markers: as for `read_form`.
        source: as for `read_form`.

    Raises:
        UserError: it cannot.
    """
    start: list[Message] = [] if system_prompt is None else [{"role": "system", "content": system_prompt}]
    if start and (why := refuses_system(layout)):
        raise UserError(f"model.system_prompt: this chat template accepts no system turn: {why}")
    try:
        return read_form(layout, start, markers, source)
    except CannotRender as reason:
        raise UserError(
            f'model.template: the chat template does not work: {reason}; set model.template = "plain", '
            'or give another template: model.chat_template = "FILE.jinja"'
        ) from None


def refuses_system(layout: ChatLayout) -> str:
    """Why a layout has no place for a system turn; "" if it has one, or writes no conversation at all."""
    question: Message = {"role": "user", "content": _QUESTION}
    try:
        layout.render([question], generate=True)
    except CannotRender:
        return ""
    try:
        text = layout.render([{"role": "system", "content": _SYSTEM}, question], generate=True)
    except CannotRender as reason:
        return str(reason)
    return "" if _SYSTEM in text else "it leaves the turn out"


def read_form(
    layout: ChatLayout, start: Sequence[Message] = (), markers: Sequence[str] | None = None, source: str = ""
) -> Form:
    """Read off probe conversations what a layout writes around an answer.

    Args:
        layout: how conversations are written.
        start: turns before the question, e.g. the system turn.
        markers: what opens and closes a reasoning block, in the user's words; empty: there is none; None: as the
            layout shows.
        source: text of the chat template, where a closing marker may be mentioned.

    Raises:
        CannotRender: the layout fails, or leaves out a turn.
    """
    asked = [*start, {"role": "user", "content": _QUESTION}]
    prompt = layout.render(asked, generate=True)
    before, _, tail = layout.render([*asked, {"role": "assistant", "content": _ANSWER}], generate=False).rpartition(
        _ANSWER
    )
    if _QUESTION not in prompt:
        raise CannotRender("it leaves the question out")
    if not before:
        raise CannotRender("it leaves the answer out")
    lead = before.removeprefix(prompt) if before.startswith(prompt) else ""
    found: Markers | None
    closing = ""
    if markers is None:
        found, closing = _shown(layout, asked, prompt, before, lead, source)
    else:
        found = (markers[0], markers[1]) if markers else None
    if found is not None:
        lead = _closed(prompt, lead, found, closing, forced=bool(markers))
    core = lead.rstrip(" ")
    return Form(core, lead[len(core) :], tail, found)


def _closed(prompt: str, lead: str, markers: Markers, closing: str, forced: bool) -> str:
    """The lead with the reasoning block closed, where the prompt leaves one open; with an empty block if forced."""
    opening, end = markers
    written = (prompt.rpartition(_QUESTION)[2] + lead).rstrip()
    if written.endswith(opening.rstrip()):
        line = "\n" if prompt.endswith("\n") else ""
        return lead + (closing or f"{line}{end}{2 * line}")
    if forced and end not in lead and not written.endswith(end):
        return f"{opening}\n\n{end}\n\n{lead}"
    return lead


def _shown(
    layout: ChatLayout, asked: list[Message], prompt: str, before: str, lead: str, source: str
) -> tuple[Markers, str]:
    """The markers that a layout shows, and the text that closes a block, if the layout itself writes a trace."""
    after_question = prompt.rpartition(_QUESTION)[2]
    headers = [after_question, before.rpartition(_QUESTION)[2], _earlier_header(layout, asked)]
    for field in _FIELDS:
        trace, close = _traced(layout, asked, field)
        if close.strip():
            opening = _beyond(trace, headers) or _last_tag(trace)
            if opening.strip():
                return (opening.strip(), close.strip()), close
    left = _beyond(after_question, headers[1:])
    pair = _PAIR.fullmatch((left + lead).strip())
    if pair is not None and _akin(pair[1], pair[2]):
        return (pair[1], pair[2]), ""
    if re.fullmatch(_TAG, left.strip()):
        tag, other = left.strip(), _partner(left.strip())
        return (other, tag) if _is_closing(tag) else (tag, other), ""
    tags = [tag for tag in re.findall(_TAG, source) if _THOUGHT.search(tag)]
    mentioned = [(_partner(tag), tag) for tag in tags if _is_closing(tag) and _partner(tag) in tags]
    return (mentioned[0] if mentioned else USUAL), ""


def _traced(layout: ChatLayout, asked: list[Message], field: str) -> tuple[str, str]:
    """Text between question and trace, and between trace and answer, if a message carries a trace."""
    message = {"role": "assistant", "content": _ANSWER, field: _TRACE}
    try:
        text = layout.render([*asked, message], generate=False)
    except CannotRender:
        return "", ""
    head, _, rest = text.partition(_TRACE)
    close, found, _ = rest.partition(_ANSWER)
    return (head.rpartition(_QUESTION)[2], close) if found else ("", "")


def _earlier_header(layout: ChatLayout, asked: list[Message]) -> str:
    """Text between a question and its answer in an exchange that is followed by another question."""
    later = [{"role": "assistant", "content": _ANSWER}, {"role": "user", "content": "expunge"}]
    try:
        text = layout.render([*asked, *later], generate=True)
    except CannotRender:
        return ""
    return text.partition(_ANSWER)[0].rpartition(_QUESTION)[2]


def _beyond(text: str, headers: Sequence[str]) -> str:
    """What follows the longest of the headers that a text begins with; "" if none says where it goes on."""
    proper = [header for header in headers if header and text.startswith(header) and text != header]
    return text[len(max(proper, key=len)) :] if proper else ""


def _last_tag(text: str) -> str:
    found = _LAST_TAG.search(text)
    return found[1] if found else ""


def _akin(opening: str, closing: str) -> bool:
    """Whether two tags are named alike, as `<|think_start|>` and `<|think_end|>` are."""
    first, second = (set(re.findall(r"[a-z]{3,}", tag.casefold().replace("_", " "))) for tag in (opening, closing))
    return bool(first & second) or _partner(opening) == closing


def _is_closing(tag: str) -> bool:
    return "/" in tag[:3] or any(end in tag for _, end in _ENDINGS)


def _partner(tag: str) -> str:
    """The tag that closes an opening one, or opens a closing one."""
    for start, end in _ENDINGS:
        for one, other in ((start, end), (end, start)):
            if one in tag:
                return tag.replace(one, other, 1)
    if "/" in tag[:3]:
        return tag.replace("/", "", 1)
    if tag[:2] == "<|":
        return f"<|/{tag[2:]}"
    return f"{tag[0]}/{tag[1:]}"
