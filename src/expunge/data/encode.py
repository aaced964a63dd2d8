"""Text to token ids, with a clean boundary between prompt and answer.

If a template ends in a space, byte-pair encoding may merge that space into the answer's first token, which then
silently carries no label. So prompt and answer are encoded together only if the prompt's own ids are a prefix of the
result, and separately otherwise: the labels are always exactly the tokens of the answer and the end token.
"""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from expunge.core.errors import UserError
from expunge.core.provenance import sha256_text
from expunge.data.chat import CannotRender, ChatLayout, ChatTemplate, Message, PlainLayout
from expunge.data.choices import choice_header, choice_question, letters
from expunge.data.example import Example
from expunge.data.form import checked_form, refuses_system
from expunge.data.matching import find
from expunge.data.reasoning import Reasoning
from expunge.data.tokens import bare_ids, front_ids, offsets

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Template = Literal["chat", "plain"]
Overflow = Literal["refuse", "truncate"]
Ids = tuple[int, ...]
MaxTokens = int | Mapping[str, int] | None
"""Where documents are cut off: everywhere, by topic, or nowhere."""

OTHER_TOPICS = "other"
"""Key of a table of limits by topic for the topics that it does not name."""
DOCUMENT_PROMPT = 0.25
"""Share of a document that serves as the prompt when its continuation is measured."""


@dataclass(frozen=True)
class Encoded:
    """Token ids; the first `num_prompt` carry no label, the others are the labels, or those at `targets` alone."""

    ids: tuple[int, ...]
    num_prompt: int
    targets: tuple[int, ...] = ()
    """Places in `ids` of the labels, where only some tokens after the prompt are."""
    num_padding: int = 0
    """Ids at the end that are labels, but that nothing attends to."""

    @property
    def places(self) -> tuple[int, ...]:
        """Places in `ids` of the labels."""
        return self.targets or tuple(range(self.num_prompt, len(self.ids)))

    @property
    def prompt(self) -> tuple[int, ...]:
        """Ids before the first label."""
        return self.ids[: self.num_prompt]

    @property
    def labels(self) -> tuple[int, ...]:
        """Ids that are predicted: the answer and the end token, unless `targets` says otherwise."""
        return tuple(self.ids[place] for place in self.places)


@dataclass(frozen=True)
class Documents:
    """How documents become rows; see `Encoder.chunks`."""

    chunk_tokens: int = 256
    max_tokens: MaxTokens = None

    def rows(self, encoder: Encoder, examples: Sequence[Example]) -> tuple[Example, ...]:
        """The rows that training and measurement see."""
        return encoder.chunks(examples, self.chunk_tokens, self.max_tokens)


_NO_ROW = Example("")


class Encoder:
    r"""Lays out questions and answers for one tokenizer.

    Args:
        tokenizer: any Hugging Face tokenizer.
        template: `chat` uses the tokenizer's chat template, `plain` writes `Question: ...\nAnswer: ...`.
        system_prompt: text of the system turn. Default: the template's own. A row's own takes precedence.
        max_length: longest sequence in tokens.
        overflow: what to do with a longer one; `truncate` drops tokens at the start of the prompt.
        chat_template: name of one of the tokenizer's chat templates, or path of a template file.
        template_options: variables of the chat template.
        date: what the chat template sees as today. Default: today.
        reasoning: what opens and closes a reasoning block; empty for none. Default: as the template shows.

    Raises:
        UserError: the tokenizer has no chat template, or one that fails or leaves out a turn; or it has no end token.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: Template = "chat",
        system_prompt: str | None = None,
        max_length: int = 2048,
        overflow: Overflow = "refuse",
        *,
        chat_template: str | None = None,
        template_options: Mapping[str, Any] | None = None,
        date: datetime.date | None = None,
        reasoning: Sequence[str] | None = None,
    ) -> None:
        if tokenizer.eos_token_id is None:
            raise UserError(
                "model: the tokenizer names no end-of-sequence token (eos_token in tokenizer_config.json), "
                "so no answer could end"
            )
        self.tokenizer = tokenizer
        self.template = template
        self.system_prompt = system_prompt
        self.max_length = max_length
        self.overflow = overflow
        self.truncated_ids: set[str] = set()
        self._front = front_ids(tokenizer)
        chat = ChatTemplate(tokenizer, chat_template, template_options, date) if template == "chat" else None
        self._layout: ChatLayout = chat or PlainLayout()
        self.date = None if chat is None or chat.date is None else chat.date.isoformat()
        """What the chat template sees as today; None if it does not use the date."""
        self._form = checked_form(self._layout, system_prompt, reasoning, chat.source if chat else "")
        self._described = {
            "template": template,
            "system_prompt": system_prompt,
            "chat_template": chat.source if chat else None,
            "options": chat.options if chat else {},
            "date": self.date,
            "reasoning": self._form.markers,
        }
        self.end_id = self._end_id()
        self.reasoning = Reasoning(tokenizer, self._form, self.stop_ids)
        """Tells what a model thought from what it answered."""

    @property
    def stop_ids(self) -> frozenset[int]:
        """Ids that end a generation."""
        return frozenset({self.end_id, int(self.tokenizer.eos_token_id)})

    def fingerprint(self) -> str:
        """SHA-256 over all that decides how rows are laid out: template, variables, date, and a probe's token ids."""
        probe = [self.answer("expunge", "expunge").ids, self._ids("expunge", special=True), self.overflow]
        return sha256_text(json.dumps([self._described, self.max_length, probe], sort_keys=True, default=str))

    def unusual(self) -> dict[str, Any]:
        """What differs from the bare layout: variables of the chat template, the date that it sees, a system prompt."""
        more = {"template_options": self._described["options"], "date": self.date, "system_prompt": self.system_prompt}
        return {key: value for key, value in more.items() if value}

    def prompting(self) -> dict[str, Any]:
        """How questions are laid out, for a record: what differs from the bare layout, and the fingerprint."""
        return {"template": self.template, **self.unusual(), "fingerprint": self.fingerprint()}

    def answer(self, question: str, answer: str, row: str = "") -> Encoded:
        """A question with an answer; `row` names it in messages and counts."""
        return self.answered(Example(row, question=question), answer)

    def prompt(self, question: str, row: str = "") -> tuple[int, ...]:
        """The ids that a generation starts from."""
        return self.asked(Example(row, question=question))

    def answered(self, example: Example, answer: str) -> Encoded:
        """Any answer to a row's question, or after its raw prompt.

        The answer to a question follows what the template's finished turns put before it, e.g. an empty reasoning
        block. After a prompt, or a start of the answer, one space precedes the answer, unless that ends in a space;
        the answer's first token is a label in either case. What ends an answer after a prompt is the tokenizer's own
        end.
        """
        text, space = self._before(example, answer)
        end = self.end_id if example.prompt is None else int(self.tokenizer.eos_token_id)
        prompt, labels = self._apart(text, space + answer.strip(), self._is_text(example))
        while labels and labels[-1] == end:
            labels.pop()
        return self._fit(prompt, [*labels, end], example.id)

    def answer_prompt(self, example: Example, answer: str = "", document_prompt: float = DOCUMENT_PROMPT) -> Ids:
        """The ids that an answer follows: those of `asked`, and an empty reasoning block where the template has one."""
        if example.text is not None:
            return self.asked(example, document_prompt)
        text, _ = self._before(example, answer)
        return self._fit(self._ids(text, self._is_text(example)), [], example.id).ids

    def asked(self, example: Example, document_prompt: float = DOCUMENT_PROMPT) -> Ids:
        """The ids that generation starts from: a row's question, its raw prompt, or such a share of its document."""
        if example.text is not None:
            return self.document(example.text, example.id, document_prompt).prompt
        if example.prompt is None and example.answer_start is None:
            return self._fit(
                self._ids(self._prompt_text(example.question, example), self._is_text(example)), [], example.id
            ).ids
        return self.answer_prompt(example)

    def choices(self, example: Example) -> tuple[Encoded, ...]:
        """A row's options as a multiple-choice prompt with each letter after it: the labels are the letter's tokens.

        A row with neither a raw prompt nor a start of its answer is laid out as in lm-eval, about its topic and without
        the chat template. White space at the prompt's end belongs to the letter, as in lm-eval.
        """
        special = self._is_text(example)
        if example.prompt is None and example.answer_start is None:
            text, special = choice_header(example.topic) + choice_question(example.asked, example.options), True
        else:
            text, _ = self._before(example)
        pairs = [self._apart(text.rstrip(), f" {letter}", special) for letter in letters(len(example.options))]
        return tuple(self._fit(start, labels, example.id) for start, labels in pairs)

    def document(self, text: str, row: str = "", prompt_share: float = 0.0) -> Encoded:
        """A document whose labels are all its tokens but the first, or those after `prompt_share` of it."""
        ids = self._ids(text, special=True)
        if len(ids) < 2:
            raise UserError(f"row '{row}': the text is a single token, so there is nothing to predict")
        num_prompt = max(1, int(len(ids) * prompt_share))
        return self._fit(ids[:num_prompt], ids[num_prompt:], row)

    def example(self, example: Example) -> Encoded:
        """A row as training sees it."""
        if example.text is not None:
            return self.document(example.text, example.id)
        assert example.answer is not None
        return self.answered(example, example.answer)

    def keywords(self, example: Example) -> Encoded:
        """A row as training sees it if only the tokens that hold a keyword are labels.

        The words around them ("The author of ... is") belong to every answer of that form, and need not be forgotten.
        What follows the last of them is cut off: no label depends on it. A row whose answer holds none of its keywords
        keeps all its labels.
        """
        encoded = self.example(example)
        spans = find(self._text(encoded.labels), example.keywords)
        ends = [len(self._text(encoded.labels[:count])) for count in range(len(encoded.labels) + 1)]
        held = [
            encoded.num_prompt + index
            for index, (start, end) in enumerate(pairwise(ends))
            if any(start < last and first < end for first, last in spans)
        ]
        if not held:
            return encoded
        return replace(encoded, ids=encoded.ids[: held[-1] + 1], targets=tuple(held))

    def _text(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def decode(self, ids: Sequence[int]) -> str:
        """Text of generated ids, without special tokens."""
        return self._text(ids).strip()

    def first_tokens(self, text: str, count: int) -> str:
        """The text up to the end of its first `count` tokens, among them a start token that the tokenizer writes."""
        ends = [end for _, end in offsets(self.tokenizer, text)]
        count = max(1, count - len(self._front))
        return text if len(ends) <= count else text[: ends[count - 1]]

    def chunks(
        self, examples: Sequence[Example], chunk_tokens: int, max_tokens: MaxTokens = None
    ) -> tuple[Example, ...]:
        """Documents as rows: split into even pieces of at most `chunk_tokens` of their tokens, or cut off.

        Splitting loses no text. A piece that starts or ends within a word can have a few more tokens when it is encoded
        separately.

        Args:
            examples: any rows; those that are no documents stay as they are.
            chunk_tokens: tokens of a piece.
            max_tokens: keep only this many tokens of a document, start tokens included, and do not split it; a mapping
                gives the number for each topic, `other` that of all other topics, whose documents are split without it.
        """
        rows: list[Example] = []
        for example in examples:
            limit = max_tokens
            if isinstance(limit, Mapping):
                limit = limit.get(example.topic or OTHER_TOPICS, limit.get(OTHER_TOPICS))
            if example.text is not None and limit is not None:
                rows.append(replace(example, text=self.first_tokens(example.text, limit)))
            else:
                rows += self._pieces(example, chunk_tokens)
        return tuple(rows)

    def _pieces(self, example: Example, chunk_tokens: int) -> Iterator[Example]:
        if example.text is None:
            yield example
            return
        starts = [start for start, _ in offsets(self.tokenizer, example.text)]
        count = -(-len(starts) // chunk_tokens)
        if count <= 1:
            yield example
            return
        inner = [starts[len(starts) * number // count] for number in range(1, count)]
        for number, (start, end) in enumerate(pairwise((0, *inner, len(example.text)))):
            if text := example.text[start:end].strip():
                yield replace(example, id=f"{example.id}#{number}", text=text, cluster=example.unit or example.id)

    def _before(self, example: Example, answer: str = "") -> tuple[str, str]:
        """The text before a row's answer, and the space between them, which belongs to the answer's first token.

        An answer, or a start of one, that brings its own reasoning block takes the place of the template's empty one.
        """
        if example.prompt is not None:
            return example.prompt, "" if example.prompt[-1:].isspace() else " "
        text, start = self._prompt_text(example.question, example), example.answer_start
        lead, space = self._form.lead, self._form.space
        opening = self._form.markers[0] if self._form.markers else ""
        if opening and (answer if start is None else start).lstrip().startswith(opening):
            lead, space = "", ""
            text = text.rstrip().removesuffix(opening) if text.rstrip().endswith(opening) else text
        if start is None:
            return text + lead, space
        text = f"{text}{lead}{space}{start}"
        return text, "" if text[-1:].isspace() else " "

    def _prompt_text(self, question: str | None, example: Example = _NO_ROW) -> str:
        """A question after the system prompt and history of a row, up to where the answer begins."""
        turns = [*self._start(example), {"role": "user", "content": (question or "").strip()}]
        try:
            return self._layout.render(turns, generate=True)
        except CannotRender as reason:
            what = "system: " if example.system is not None else "history: " if example.history else ""
            raise UserError(
                f"row '{example.id}': {what}the chat template refuses this conversation: {reason}"
            ) from None

    def _start(self, example: Example) -> list[Message]:
        """The turns before a row's question.

        Raises:
            UserError: the row brings a system prompt, and the template has no place for one.
        """
        turns: list[Message] = [{"role": role, "content": content} for role, content in example.history]
        system = self.system_prompt if example.system is None else example.system
        if system is None:
            return turns
        if example.system is not None and self._refuses_system:
            raise UserError(
                f"row '{example.id}': system: this chat template accepts no system turn: {self._refuses_system}; "
                "put its text into the question"
            )
        return [{"role": "system", "content": system}, *turns]

    @cached_property
    def _refuses_system(self) -> str:
        return refuses_system(self._layout)

    def _is_text(self, example: Example) -> bool:
        """Whether a row is asked as plain text, which begins with the tokenizer's own special tokens."""
        return self.template == "plain" or example.prompt is not None

    def _end_id(self) -> int:
        """The token that closes an answer: what the template writes after it, else the end of sequence."""
        tail = self._form.tail.strip()
        ids = self._ids(tail, special=False) if tail else []
        return ids[0] if ids else int(self.tokenizer.eos_token_id)

    def _ids(self, text: str, special: bool) -> list[int]:
        """Ids of a text; special tokens are added at the start of plain text only: a chat template writes its own."""
        ids = bare_ids(self.tokenizer, text)
        return ids if not special or ids[: len(self._front)] == self._front else [*self._front, *ids]

    def _apart(self, prompt: str, text: str, special: bool) -> tuple[list[int], list[int]]:
        """Ids of a prompt and of the text after it: encoded together where that leaves the prompt's ids as they are."""
        prompt_ids = self._ids(prompt, special)
        together = self._ids(prompt + text, special)
        if together[: len(prompt_ids)] == prompt_ids and len(together) > len(prompt_ids):
            return prompt_ids, together[len(prompt_ids) :]
        return prompt_ids, self._ids(text, special=False)

    def _fit(self, prompt: list[int], labels: list[int], row: str) -> Encoded:
        excess = len(prompt) + len(labels) - self.max_length
        if excess > 0:
            if self.overflow == "refuse":
                raise UserError(
                    f"row '{row}': {len(prompt) + len(labels)} tokens, the limit is {self.max_length} "
                    '(model.max_length); set model.overflow = "truncate" to cut the start of the prompt'
                )
            self.truncated_ids.add(row)
            prompt = prompt[min(excess, len(prompt) - 1) :]
            labels = labels[: self.max_length - len(prompt)]
        return Encoded((*prompt, *labels), len(prompt))
