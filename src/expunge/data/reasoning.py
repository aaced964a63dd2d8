"""Separate the reasoning in a generated text from its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from expunge.data.form import Form

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Parts:
    """A generated text, split into reasoning and answer."""

    reasoning: str | None
    """The trace; None where it wrote none, or an empty one."""
    answer: tuple[int, ...] | None
    """Tokens of the answer; None where the reasoning did not come to an end."""


class Reasoning:
    """Tells a model's reasoning from its answer.

    Args:
        tokenizer: of the model.
        form: of the layout.
        stop_ids: tokens that end a generation.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, form: Form, stop_ids: frozenset[int]) -> None:
        self.markers = form.markers
        self.opening, self.closing = form.markers or ("", "")
        self._header = form.lead.strip()
        self._tokenizer = tokenizer
        self.window = len(self.closing.encode()) + 4
        self.inner_stops = frozenset(token for token in stop_ids if self.raw([token]).strip() in self.closing)

    def opened(self, prompt: Sequence[int]) -> bool:
        """Whether a prompt ends within a reasoning block that it has just opened."""
        if not self.opening:
            return False
        tail = prompt[-len(self.opening.encode()) - 4 :]
        return self.raw(tail).rstrip().endswith(self.opening)

    def parts(self, ids: Sequence[int], opened: bool, ended: bool = True) -> Parts:
        """Split a generated text into reasoning and answer.

        Args:
            ids: its tokens, without the stop token.
            opened: whether its prompt had opened a reasoning block.
            ended: whether it stopped by itself: reasoning that nothing follows then leaves an empty answer.
        """
        text = self.raw(ids) if self.markers else ""
        begun = text.lstrip()
        if self.markers and (opened or begun.startswith(self.opening)):
            place = text.find(self.closing)
            if place < 0:
                return Parts(self._trace(text), () if ended else None)
            return Parts(self._trace(text[:place]), self._from(ids, place + len(self.closing)))
        if self.markers and self._header and begun.startswith(self._header):
            return Parts(None, self._from(ids, text.find(self._header) + len(self._header)))
        return Parts(None, tuple(ids))

    def watch(self, prompt: Sequence[int], answer: int, reasoning: int, given: Sequence[int] = ()) -> Watch:
        """Follow a generation.

        Args:
            prompt: the ids that it starts from.
            answer: longest answer, in tokens.
            reasoning: longest reasoning, in tokens.
            given: tokens that are known to follow the prompt.
        """
        watch = Watch(self, self.opened(prompt), answer, reasoning)
        for token in given:
            if watch.going:
                watch.stays(token, stopped=False)
        return watch

    def raw(self, ids: Sequence[int]) -> str:
        """Text with special tokens: they may be the markers."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _trace(self, text: str) -> str | None:
        """What a block holds, without its opening marker and special tokens."""
        text = text.lstrip().removeprefix(self.opening)
        for token in self._tokenizer.all_special_tokens:
            text = text.replace(str(token), " ")
        return text.strip() or None

    def _from(self, ids: Sequence[int], end: int) -> tuple[int, ...]:
        """The tokens after a place of the text, and after those of white space alone that follow it."""
        low, high = 0, len(ids)
        while low < high:
            middle = (low + high) // 2
            low, high = (middle + 1, high) if len(self.raw(ids[:middle])) < end else (low, middle)
        while low < len(ids) and not self.raw([ids[low]]).strip():
            low += 1
        return tuple(ids[low:])


class Watch:
    """Follows one generation token by token: reasoning and answer each have a limit of their own.

    Args:
        reasoning: the markers.
        opened: whether the prompt has opened a reasoning block.
        answer: longest answer, in tokens.
        limit: longest reasoning, in tokens.
    """

    def __init__(self, reasoning: Reasoning, opened: bool, answer: int, limit: int) -> None:
        self.going = True
        """Whether more may follow."""
        self.ended = False
        """Whether the model stopped by itself."""
        self._reasoning, self._opened = reasoning, opened
        begins = "reasoning" if opened else "start"
        self._state = begins if reasoning.markers and limit else "answer"
        self._answer, self._limit = answer, limit
        self._ids: list[int] = []
        self._before = 0

    @property
    def ids(self) -> tuple[int, ...]:
        """All tokens so far, without the stop token at the end."""
        return tuple(self._ids[:-1] if self.ended else self._ids)

    def parts(self) -> Parts:
        """The text so far, split into reasoning and answer."""
        return self._reasoning.parts(self.ids, self._opened, self.ended)

    @property
    def room(self) -> int:
        """Tokens that may still follow at most."""
        most = self._before + self._answer if self._state == "answer" else self._limit + self._answer
        return max(0, most - len(self._ids)) if self.going else 0

    def stays(self, token: int, stopped: bool) -> bool:
        """Note the next token, and say whether more may follow it.

        Args:
            token: its id.
            stopped: whether it ends generations; not those whose reasoning block it is a part of the end of.
        """
        self.going = self._goes_on(token, stopped)
        self.ended = stopped and not self.going
        return self.going

    def _goes_on(self, token: int, stopped: bool) -> bool:
        self._ids.append(token)
        one = self._reasoning
        if self._state == "start":
            text = one.raw(self._ids).lstrip()
            if text.startswith(one.opening):
                self._state = "reasoning"
            elif not stopped and one.opening.startswith(text):  # white space alone counts as answer
                return len(self._ids) < (self._limit if text else min(self._limit, self._answer))
            else:
                self._state = "answer"
        if self._state == "reasoning":
            if one.closing in one.raw(self._ids[-one.window :]):
                self._state, self._before = "answer", len(self._ids)
                return not stopped
            return len(self._ids) < self._limit and (not stopped or token in one.inner_stops)
        return not stopped and len(self._ids) - self._before < self._answer
