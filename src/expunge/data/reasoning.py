"""Which part of what a model wrote is its reasoning, and which its answer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from expunge.data.form import Form

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True)
class Parts:
    """What a model wrote, taken apart."""

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
        self._opening, self._closing = form.markers or ("", "")
        self._header = form.lead.strip()
        self._tokenizer = tokenizer
        self._window = len(self._closing.encode()) + 4
        self._inner_stops = frozenset(token for token in stop_ids if self._raw([token]).strip() in self._closing)

    def opened(self, prompt: Sequence[int]) -> bool:
        """Whether a prompt ends within a reasoning block that it has just opened."""
        if not self._opening:
            return False
        tail = prompt[-len(self._opening.encode()) - 4 :]
        return self._raw(tail).rstrip().endswith(self._opening)

    def parts(self, ids: Sequence[int], opened: bool, ended: bool = True) -> Parts:
        """Take apart what a model wrote.

        Args:
            ids: its tokens, without the stop token.
            opened: whether its prompt had opened a reasoning block.
            ended: whether it stopped by itself: reasoning that nothing follows then leaves an empty answer.
        """
        text = self._raw(ids) if self.markers else ""
        begun = text.lstrip()
        if self.markers and (opened or begun.startswith(self._opening)):
            place = text.find(self._closing)
            if place < 0:
                return Parts(self._trace(ids), () if ended else None)
            start = self._first_after(ids, text, place + len(self._closing))
            return Parts(self._trace(ids[: self._first_after(ids, text, place, skip=False)]), tuple(ids[start:]))
        if self.markers and self._header and begun.startswith(self._header):
            return Parts(None, tuple(ids[self._first_after(ids, text, text.find(self._header) + len(self._header)) :]))
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
            watch.going = watch.stays(token, stopped=False)
        return watch

    def _raw(self, ids: Sequence[int]) -> str:
        """Text with special tokens: they may be the markers."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=False, clean_up_tokenization_spaces=False))

    def _trace(self, ids: Sequence[int]) -> str | None:
        text = str(self._tokenizer.decode(list(ids), skip_special_tokens=True)).strip()
        return text.removeprefix(self._opening).strip() or None

    def _first_after(self, ids: Sequence[int], text: str, end: int, skip: bool = True) -> int:
        """How many tokens reach so far into the text, and over the white space that follows."""
        if skip:
            end += len(text[end:]) - len(text[end:].lstrip())
        low, high = 0, len(ids)
        while low < high:
            middle = (low + high) // 2
            if len(self._raw(ids[:middle])) < end:
                low = middle + 1
            else:
                high = middle
        return low


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
        self._reasoning = reasoning
        begins = "reasoning" if opened else "start"
        self._state = begins if reasoning.markers and limit else "answer"
        self._answer, self._limit = answer, limit
        self._ids: list[int] = []
        self._before = 0

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
            text = one._raw(self._ids).lstrip()
            if text.startswith(one._opening):
                self._state = "reasoning"
            elif stopped or not one._opening.startswith(text):
                self._state = "answer"
        if self._state == "reasoning":
            if one._closing in one._raw(self._ids[-one._window :]):
                self._state, self._before = "answer", len(self._ids)
                return not stopped
            return len(self._ids) < self._limit and (not stopped or token in one._inner_stops)
        return not stopped and len(self._ids) - self._before < self._answer
