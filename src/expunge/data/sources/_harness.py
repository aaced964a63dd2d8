"""Published multiple-choice rows (`question`, `choices`, `answer`) as prompts of lm-evaluation-harness."""

from __future__ import annotations

from typing import NamedTuple

from expunge.core.errors import UserError
from expunge.data.choices import MOST_OPTIONS, choice_header, choice_question, letters
from expunge.data.formats.base import RawRow
from expunge.data.sources._tables import text_of, texts_of


class ChoiceQuestion(NamedTuple):
    """A question with its choices, and the right one's letter."""

    question: str
    options: tuple[str, ...]
    letter: str

    @property
    def letters(self) -> list[str]:
        """Of all choices, in order."""
        return list(letters(len(self.options)))


def choice_of(item: RawRow) -> ChoiceQuestion:
    """A published row; its answer is the place of the right choice, from 0, or its letter.

    Raises:
        UserError: a missing field, fewer than two choices, or an answer that is none of them.
    """
    question, options = text_of(item, "question"), texts_of(item, "choices")
    if not 2 <= len(options) <= MOST_OPTIONS:
        raise UserError(f"{item.where}: 2 to {MOST_OPTIONS} choices are possible, found {len(options)}")
    answer, known = item.row.get("answer"), letters(len(options))
    if isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(options):
        return ChoiceQuestion(question, tuple(options), known[answer])
    if isinstance(answer, str) and answer in known:
        return ChoiceQuestion(question, tuple(options), answer)
    raise UserError(f"{item.where}: the answer {answer!r} is none of the {len(options)} choices")


def harness_row(choice: ChoiceQuestion, about: str, shots: tuple[ChoiceQuestion, ...] = ()) -> dict[str, object]:
    """The row's raw prompt, answered examples first; answer and options are letters, as the prompt spells them out."""
    asked = [f"{choice_question(shot.question, shot.options)} {shot.letter}" for shot in shots]
    asked.append(choice_question(choice.question, choice.options))
    return {"prompt": choice_header(about) + "\n\n".join(asked), "answer": choice.letter, "options": choice.letters}
