"""Conversations as text: through a tokenizer's chat template, or as plain questions and answers.

A chat template is a program that comes with a model. Whatever it raises becomes a one-line error that says what to do;
it sees a fixed date instead of the clock; and a conversation that it does not write out completely is refused.
"""

from __future__ import annotations

import datetime
import inspect
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from expunge.core.errors import UserError, near

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Message = Mapping[str, str]
"""`role` (system, user or assistant) and `content` of a turn, and in probes the field of a reasoning trace."""

_NAME = re.compile(r"[A-Za-z_]\w*")
_CLOCK = "strftime_now"
"""The function by which transformers gives chat templates the time."""
_DATE = "date_string"
"""The variable by which Llama's templates take a date."""
_LIKE_LLAMA = "%d %b %Y"


def today() -> datetime.date:
    """The day on which this runs."""
    return datetime.date.today()


class CannotRender(Exception):
    """A layout cannot write a conversation; the message says why, in a few words."""


class ChatLayout(Protocol):
    """How a conversation is written."""

    def render(self, messages: Sequence[Message], generate: bool) -> str:
        """The text of a conversation.

        Args:
            messages: its turns.
            generate: end with what a model is to continue; otherwise the last turn is a finished answer.

        Raises:
            CannotRender: this layout has no form for it.
        """


class PlainLayout:
    r"""`Question: ...\nAnswer: ...`; before it a system prompt and earlier exchanges, an empty line after each."""

    def render(self, messages: Sequence[Message], generate: bool) -> str:
        """As `ChatLayout.render`; the answer's own space is written with the answer."""
        forms = {"system": "{}\n\n", "user": "Question: {}\nAnswer:", "assistant": " {}\n\n"}
        text = "".join(forms[message["role"]].format(message["content"]) for message in messages)
        return text if generate else text.removesuffix("\n\n")


class ChatTemplate:
    """A tokenizer's chat template with its variables and one fixed date.

    Args:
        tokenizer: whose template it is.
        choice: name of one of its templates, or path of a template file. Default: the only one, or `default`.
        options: variables of the template, by name.
        date: what the template sees as today. Default: today, if the template uses the date.

    Raises:
        UserError: no such template, or a variable that it does not mention.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        choice: str | None = None,
        options: Mapping[str, Any] | None = None,
        date: datetime.date | None = None,
    ) -> None:
        self._tokenizer = tokenizer
        self.source = _source(tokenizer, choice)
        self._chosen: dict[str, Any] = {} if choice is None else {"chat_template": self.source}
        names = set(_NAME.findall(self.source))
        self.options = dict(options or {})
        _check_options(self.options, names, tokenizer)
        asks = _CLOCK in names
        takes = date is not None and _DATE in names and _DATE not in self.options
        self.date: datetime.date | None = (date or today()) if asks or takes else None
        """What the template sees as today; None if it does not use the date."""
        self._dated: dict[str, Any] = {}
        if self.date is not None:
            midnight = datetime.datetime.combine(self.date, datetime.time())
            self._dated[_CLOCK] = midnight.strftime
            if takes:
                self._dated[_DATE] = midnight.strftime(_LIKE_LLAMA)

    def render(self, messages: Sequence[Message], generate: bool) -> str:
        """As `ChatLayout.render`."""
        turns: Any = [dict(message) for message in messages]
        try:
            text: object = self._tokenizer.apply_chat_template(
                turns, tokenize=False, add_generation_prompt=generate, **self._chosen, **self.options, **self._dated
            )
        except Exception as error:  # a template is somebody's program: it can raise anything
            raise CannotRender(_reason(error)) from None
        if not isinstance(text, str):
            raise CannotRender(f"it gives no text but a {type(text).__name__}")
        return text


def _source(tokenizer: PreTrainedTokenizerBase, choice: str | None) -> str:
    own: Any = getattr(tokenizer, "chat_template", None)
    if isinstance(own, list | tuple):
        own = {one.get("name"): one.get("template") for one in own if isinstance(one, dict)}
    named: dict[str, Any] = own if isinstance(own, dict) else {"default": own} if own else {}
    if choice is not None and choice not in named:
        return _file(choice, named)
    if not named:
        raise UserError(
            'model.template: this tokenizer has no chat template; set model.template = "plain", '
            'or give one: model.chat_template = "FILE.jinja"'
        )
    name = "default" if choice is None else choice
    if name not in named:
        raise UserError(
            "model.chat_template: this tokenizer has several chat templates and none is called default; "
            f"choose one of {', '.join(sorted(map(str, named)))}"
        )
    if not isinstance(named[name], str):
        raise UserError(f"model.template: the tokenizer's chat template is no text but a {type(named[name]).__name__}")
    return str(named[name])


def _file(choice: str, named: Mapping[str, Any]) -> str:
    path = Path(choice)
    try:
        if not path.is_file():
            raise UserError(
                f"model.chat_template: no template file '{choice}', and no template of that name in this tokenizer"
                f"{near(choice, map(str, named))}"
            )
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"model.chat_template: cannot read '{choice}': {_reason(error)}") from None


def _check_options(options: Mapping[str, Any], names: set[str], tokenizer: PreTrainedTokenizerBase) -> None:
    """Refuse variables that would have no effect, or that are arguments of the rendering itself."""
    apply: Any = tokenizer.apply_chat_template
    reserved = {*inspect.signature(apply).parameters, "messages", _CLOCK} - {"tools", "documents", "kwargs"}
    for name in options:
        if name in reserved:
            raise UserError(f"model.template_options: '{name}' is set by expunge itself")
        if name not in names:
            raise UserError(
                f"model.template_options: this chat template has no variable '{name}'{near(name, names - reserved)}"
            )


def _reason(error: Exception) -> str:
    """One line; an error that a template raised on purpose is quoted."""
    text = " ".join(str(error).split())
    kind = type(error).__name__
    line = getattr(error, "lineno", None)
    where = f" (line {line})" if line else ""
    return f"{text}{where}" if kind == "TemplateError" and text else f"{kind}: {text}{where}"
