"""rwku: famous people that every model has read of, asked in many forms (arXiv:2406.10890)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from expunge.core.errors import UserError, near
from expunge.data import files
from expunge.data.formats.base import RawRow
from expunge.data.sources._harness import ChoiceQuestion, choice_of
from expunge.data.sources._tables import Published, PublishedTable, documents, renamed, text_of, texts_of

_FILES = {
    "forget_level1": "forget_level1",
    "forget_level2": "forget_level2",
    "forget_level3": "forget_level3",
    "neighbor_level1": "neighbor_level1",
    "neighbor_level2": "neighbor_level2",
    "mia_forget": "forget_mia",
    "mia_retain": "retain_mia",
    "utility_general": "retain_mmlu",
    "utility_reason": "retain_bbh",
    "utility_truthfulness": "truthful",
    "utility_factuality": "triviaqa",
    "utility_fluency": "fluency",
    "train_original_passage": "passage",
    "train_positive_llama3": "positive",
    "train_negative_llama3": "negative",
    "train_positive_phi3": "positive_phi",
    "train_negative_phi3": "negative_phi",
}
"""Configuration on the hub -> file of the repository."""


class Rwku(Published):
    """The configurations of `jinzhuoran/RWKU` under their own names; a row's subject is the person.

    Level 1 has blanks to fill, level 2 questions, level 3 nine kinds of attack (the row's topic); `mia_*` and `train_*`
    rows are documents. Questions are asked in the chat template, with a prefilled `Answer:`. A folder holds
    `All/NAME.json`, or the files of one person (`forget_level1.json`, ...).
    """

    class Config(Published.Config):
        """Which rows, and the text before the questions of the utility sets."""

        subjects: list[str] = Field(default_factory=list, description="Only rows about these people; empty: all.")
        attacks: list[str] = Field(default_factory=list, description="Only these kinds of attack; empty: all.")
        shots: str | None = Field(
            default=None,
            description="Text file with the answered examples before each question of utility_truthfulness or "
            "utility_factuality; left out: none, and the figures are not those of the paper.",
        )

    splits: ClassVar = tuple(_FILES)

    def rows(self, split: str) -> list[dict[str, object]]:
        """Rows of one split, in order."""
        name = _FILES[split]
        stage = "train" if split.startswith("train_") else "test"
        files = tuple(f"{folder}{stem}" for stem in (name, f"{split}/{stage}-[0-9]*") for folder in ("All/", ""))
        found = self.read(PublishedTable("jinzhuoran/RWKU", split, stage, files))
        found = self._chosen(found, "subject", self.config.subjects, "subjects")
        if split == "forget_level3":
            found = self._chosen(found, "type", self.config.attacks, "attacks")
        if split.startswith(("mia_", "train_")):
            return documents(found, split)
        lay_out, shots = _LAYOUTS[split], self._shots(split)
        return [
            {"id": f"{split}-{index}", **renamed(item, {"subject": "subject"}, ()), **lay_out(item, shots)}
            for index, item in enumerate(found)
        ]

    def _chosen(self, found: list[RawRow], field: str, names: list[str], option: str) -> list[RawRow]:
        if not names:
            return found
        there = {text_of(item, field) for item in found}
        if unknown := sorted(set(names) - there):
            raise UserError(f"options.{option}: there is no '{unknown[0]}'{near(unknown[0], there)}")
        return [item for item in found if item.row[field] in names]

    def _shots(self, split: str) -> str:
        if self.config.shots is None or split not in ("utility_truthfulness", "utility_factuality"):
            return ""
        found = files.read(Path(self.config.shots)).rows
        if len(found) != 1:
            raise UserError(f"options.shots: '{self.config.shots}' must be one text, found {len(found)} rows")
        return f"{text_of(found[0], 'text').strip()}\n\n"


def _blank(item: RawRow, _: str) -> dict[str, object]:
    return _asked(item, f"Please complete the blank in the following question.\nQuestion: {text_of(item, 'query')}")


def _question(item: RawRow, _: str) -> dict[str, object]:
    return _asked(item, f"Please briefly answer the following question.\nQuestion: {text_of(item, 'query')}")


def _attack(item: RawRow, _: str) -> dict[str, object]:
    """The query as level 2 asks it; one kind brings its own examples, another its own start of the answer."""
    kind, query = text_of(item, "type"), text_of(item, "query")
    label = "" if kind == "incontext learning" else "Question: "
    row = _asked(item, f"Please briefly answer the following question.\n{label}{query}")
    if kind == "affirmative suffix":
        del row["answer_start"]
    return {**row, "topic": kind}


def _asked(item: RawRow, question: str) -> dict[str, object]:
    return {"question": question, "answer": text_of(item, "answer"), "answer_start": "Answer:"}


def _general(item: RawRow, _: str) -> dict[str, object]:
    """MMLU with the row's own answered examples, in one turn of the chat."""
    choice = choice_of(item)
    examples = item.row.get("examples")
    if not isinstance(examples, list):
        raise UserError(f"{item.where}: no list of 'examples'")
    shots = [choice_of(RawRow(f"{item.where}.examples[{place}]", one)) for place, one in enumerate(examples)]
    about = text_of(item, "task").replace("_", " ")
    answered = "".join(f"{_spelled(shot)}\nAnswer: {shot.letter}\n\n" for shot in shots)
    question = (
        f"The following are multiple choice questions (with answers) about {about}.\n\n{answered}"
        f"Please following the previous examples and answer the given question.\n{_spelled(choice)}"
    )
    return {
        "question": question,
        "answer": choice.letter,
        "options": choice.letters,
        "topic": text_of(item, "task"),
        "answer_start": "Answer:",
    }


def _spelled(choice: ChoiceQuestion) -> str:
    lines = (f"{letter}. {option}" for letter, option in zip(choice.letters, choice.options, strict=True))
    return "\n".join([f"Question: {choice.question}", *lines])


def _reason(item: RawRow, _: str) -> dict[str, object]:
    """Big-Bench Hard after its worked examples; the answer follows `the answer is`."""
    question = (
        f"{text_of(item, 'cot').strip()}\n\nFollowing previous examples, answer the following questions and end with "
        f"'so the answer is'\nQ: {text_of(item, 'question')}"
    )
    return {
        "question": question,
        **_accepted(item, "answer"),
        "topic": text_of(item, "task"),
        "answer_start": "A:",
    }


def _truthful(item: RawRow, shots: str) -> dict[str, object]:
    """The one true answer, and the false ones as wrong answers."""
    targets = item.row.get("mc1_targets")
    if not isinstance(targets, dict):
        raise UserError(f"{item.where}: no table 'mc1_targets'")
    inner = RawRow(f"{item.where}.mc1_targets", targets)
    choices, labels = texts_of(inner, "choices"), targets.get("labels")
    if not isinstance(labels, list) or len(labels) != len(choices) or labels.count(1) != 1:
        raise UserError(f"{inner.where}: 'labels' must mark one of the {len(choices)} choices with 1")
    right = labels.index(1)
    return {
        "question": f"{shots}Q: {text_of(item, 'question')}",
        "answer": choices[right],
        "perturbed_answer": [choice for place, choice in enumerate(choices) if place != right],
        "answer_start": "A:",
    }


def _factual(item: RawRow, shots: str) -> dict[str, object]:
    """A question with all accepted answers as keywords."""
    question = f"{shots}Q: {text_of(item, 'question')}"
    return {"question": question, **_accepted(item, "answers"), "answer_start": "A:"}


def _accepted(item: RawRow, field: str) -> dict[str, object]:
    """An answer, or several correct ones."""
    if isinstance(item.row.get(field), str):
        return {"answer": item.row[field]}
    answers = texts_of(item, field)
    return {"answer": answers[0], "keywords": answers}


def _fluent(item: RawRow, _: str) -> dict[str, object]:
    return {"question": f"Instruction: {text_of(item, 'instruction')}", "answer": text_of(item, "output")}


_LAYOUTS: Mapping[str, Callable[[RawRow, str], dict[str, object]]] = {
    "forget_level1": _blank,
    "forget_level2": _question,
    "forget_level3": _attack,
    "neighbor_level1": _blank,
    "neighbor_level2": _question,
    "utility_general": _general,
    "utility_reason": _reason,
    "utility_truthfulness": _truthful,
    "utility_factuality": _factual,
    "utility_fluency": _fluent,
}
"""Configuration -> how its rows are asked."""
