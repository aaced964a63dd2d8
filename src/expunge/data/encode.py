"""Text to token ids, with a clean border between prompt and answer.

A template that ends in a blank lets byte-pair encoding merge that blank into the answer's first token, and then the
first answer token silently carries no label. Here prompt and answer are encoded together only if the prompt's own ids
are a prefix of the result, and apart otherwise: the labels are always exactly the answer's tokens and the end token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

from expunge.core.errors import UserError
from expunge.data.choices import choice_header, choice_question, letters
from expunge.data.example import Example
from expunge.data.matching import find

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

Template = Literal["chat", "plain"]
Overflow = Literal["refuse", "truncate"]

_PLAIN = "Question: {question}\nAnswer:"
_PROBE = "expunge"
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
    """Ids at the end that no position looks at, although they are labels."""

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


class Encoder:
    r"""Lays out questions and answers for one tokenizer.

    Args:
        tokenizer: any Hugging Face tokenizer.
        template: `chat` uses the tokenizer's chat template, `plain` writes `Question: ...\nAnswer: ...`.
        system_prompt: text of the system turn; None leaves the template's own default.
        max_length: longest sequence in tokens.
        overflow: what to do with a longer one; `truncate` drops tokens at the start of the prompt.

    Raises:
        UserError: the tokenizer has no chat template, or no end token.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        template: Template = "chat",
        system_prompt: str | None = None,
        max_length: int = 2048,
        overflow: Overflow = "refuse",
    ) -> None:
        if template == "chat" and not getattr(tokenizer, "chat_template", None):
            raise UserError('model.template: this tokenizer has no chat template; set model.template = "plain"')
        if tokenizer.eos_token_id is None:
            raise UserError("model: the tokenizer has no end-of-sequence token")
        self.tokenizer = tokenizer
        self.template = template
        self.system_prompt = system_prompt
        self.max_length = max_length
        self.overflow = overflow
        self.truncated_ids: set[str] = set()
        self.end_id = self._end_id()

    @property
    def stop_ids(self) -> frozenset[int]:
        """Ids that end a generation."""
        return frozenset({self.end_id, int(self.tokenizer.eos_token_id)})

    def answer(self, question: str, answer: str, row: str = "") -> Encoded:
        """A question with an answer; `row` names it in messages and counts."""
        text = answer.strip() if self.template == "chat" else f" {answer.strip()}"
        prompt, labels = self._apart(self._prompt_text(question), text)
        return self._fit(prompt, [*labels, self.end_id], row)

    def prompt(self, question: str, row: str = "") -> tuple[int, ...]:
        """The ids that a generation starts from."""
        return self._fit(self._ids(self._prompt_text(question)), [], row).ids

    def answered(self, example: Example, answer: str) -> Encoded:
        """Any answer to a row's question, or after its raw prompt.

        After a prompt, or a start of the answer, there is one blank before the answer, unless that ends in one; the
        answer's first token is a label in either case. What ends an answer after a prompt is the tokenizer's own end.
        """
        if example.prompt is None and example.answer_start is None:
            return self.answer(example.question or "", answer, example.id)
        text, special = self._asked(example)
        end = self.end_id if example.prompt is None else int(self.tokenizer.eos_token_id)
        prompt, labels = self._apart(text, ("" if text[-1:].isspace() else " ") + answer.strip(), special)
        return self._fit(prompt, [*labels, end], example.id)

    def asked(self, example: Example, document_prompt: float = DOCUMENT_PROMPT) -> tuple[int, ...]:
        """The ids that generation starts from: a row's question, its raw prompt, or such a share of its document."""
        if example.text is not None:
            return self.document(example.text, example.id, document_prompt).prompt
        return self._fit(self._ids(*self._asked(example)), [], example.id).ids

    def choices(self, example: Example) -> tuple[Encoded, ...]:
        """A row's options as a multiple-choice prompt with each letter after it: the labels are the letter's tokens.

        A row that has neither a raw prompt nor a start of its answer is asked as the harness asks, about its topic and
        without the chat template. Blanks at the prompt's end belong to the letter, as in lm-eval.
        """
        text, special = self._asked(example)
        if example.prompt is None and example.answer_start is None:
            text, special = choice_header(example.topic) + choice_question(example.asked, example.options), True
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
        """What training sees of a row."""
        if example.text is not None:
            return self.document(example.text, example.id)
        assert example.answer is not None
        return self.answered(example, example.answer)

    def keywords(self, example: Example) -> Encoded:
        """What training sees of a row when only the tokens that hold a keyword are labels.

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
        encoded = self.tokenizer(text, return_offsets_mapping=True, return_special_tokens_mask=True, verbose=False)
        special = encoded["special_tokens_mask"]
        ends = [end for (_, end), other in zip(encoded["offset_mapping"], special, strict=True) if not other]
        count -= special.index(0) if 0 in special else 0
        return text if len(ends) <= count else text[: ends[count - 1]]

    def chunks(self, examples: Sequence[Example], chunk_tokens: int) -> tuple[Example, ...]:
        """Documents cut into even pieces of at most `chunk_tokens` of their tokens; no text is lost.

        A piece that starts or ends within a word can have a few tokens more when it is encoded by itself.
        """
        return tuple(piece for example in examples for piece in self._pieces(example, chunk_tokens))

    def _pieces(self, example: Example, chunk_tokens: int) -> Iterator[Example]:
        if example.text is None:
            yield example
            return
        encoded = self.tokenizer(example.text, return_offsets_mapping=True, add_special_tokens=False, verbose=False)
        starts = [start for start, _ in encoded["offset_mapping"]]
        count = -(-len(starts) // chunk_tokens)
        if count <= 1:
            yield example
            return
        inner = [starts[len(starts) * number // count] for number in range(1, count)]
        for number, (start, end) in enumerate(pairwise((0, *inner, len(example.text)))):
            if text := example.text[start:end].strip():
                yield replace(example, id=f"{example.id}#{number}", text=text)

    def _asked(self, example: Example) -> tuple[str, bool | None]:
        """The text before a row's answer, and whether it gets special tokens (None: as the template needs)."""
        if example.prompt is not None:
            return example.prompt, True
        text, start = self._prompt_text(example.question or ""), example.answer_start
        if start is None:
            return text, None
        blank = " " if self.template == "plain" else ""
        return f"{text}{blank}{start}", None

    def _prompt_text(self, question: str) -> str:
        if self.template == "plain":
            return _PLAIN.format(question=question.strip())
        return self._render(question, None)

    def _render(self, question: str, answer: str | None) -> str:
        turns = [{"role": "system", "content": self.system_prompt}] if self.system_prompt is not None else []
        turns.append({"role": "user", "content": question.strip()})
        if answer is not None:
            turns.append({"role": "assistant", "content": answer})
        return str(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=answer is None))

    def _end_id(self) -> int:
        """The token that closes an answer: what the chat template writes after it, else the end of sequence."""
        if self.template == "plain":
            return int(self.tokenizer.eos_token_id)
        tail = self._render(_PROBE, _PROBE).rpartition(_PROBE)[2].strip()
        ids = self._ids(tail, special=False) if tail else []
        return ids[0] if ids else int(self.tokenizer.eos_token_id)

    def _ids(self, text: str, special: bool | None = None) -> list[int]:
        """Ids of a text; special tokens are added for plain text only, since a chat template writes its own."""
        add = self.template == "plain" if special is None else special
        return list(self.tokenizer(text, add_special_tokens=add, verbose=False)["input_ids"])

    def _apart(self, prompt: str, text: str, special: bool | None = None) -> tuple[list[int], list[int]]:
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
