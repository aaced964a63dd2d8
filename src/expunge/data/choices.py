r"""Multiple-choice questions as in lm-evaluation-harness, so that accuracies are comparable (arXiv:2403.03218).

The prompt spells the choices out and ends in `Answer:`; the model's choice is the most likely letter, preceded by a
space.
"""

from __future__ import annotations

from collections.abc import Sequence
from string import ascii_uppercase

MOST_OPTIONS = len(ascii_uppercase)


def letters(count: int) -> tuple[str, ...]:
    """`A`, `B`, ... for so many choices."""
    return tuple(ascii_uppercase[:count])


def choice_header(about: str | None = None) -> str:
    """The line above the questions."""
    topic = f" about {about}" if about else ""
    return f"The following are multiple choice questions (with answers){topic}.\n\n"


def choice_question(question: str, options: Sequence[str]) -> str:
    """One question with its choices, up to the place of the letter."""
    lines = (f"{letter}. {option}" for letter, option in zip(letters(len(options)), options, strict=True))
    return "\n".join([question.strip(), *lines, "Answer:"])
