"""mmlu: multiple-choice questions of 57 subjects, as the harness asks them (arXiv:2009.03300)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from expunge.core.errors import UserError, near
from expunge.data.formats.base import RawRow
from expunge.data.sources._harness import choice_of, harness_row
from expunge.data.sources._tables import Published, PublishedTable, text_of


class Mmlu(Published):
    """`cais/mmlu`; a row's topic is its subject, so that scores can be compared by subject.

    A folder holds `all/test*`, or one sub-folder a subject with `test*` (and `dev*` for examples).
    """

    class Config(Published.Config):
        """Which subjects, and how many examples."""

        subjects: list[str] = Field(default_factory=list, description="Only these subjects; empty: all.")
        shots: int = Field(default=0, ge=0, description="Answered examples of the subject before each question.")

    splits: ClassVar = ("test", "validation", "dev")

    def rows(self, split: str) -> list[dict[str, object]]:
        """Rows of one split, in order."""
        found = self._by_subject(split)
        if unknown := sorted(set(self.config.subjects) - set(found)):
            raise UserError(f"options.subjects: no subject '{unknown[0]}'{near(unknown[0], found)}")
        examples = self._by_subject("dev") if self.config.shots else {}
        rows: list[dict[str, object]] = []
        for subject, items in found.items():
            if self.config.subjects and subject not in self.config.subjects:
                continue
            shots = tuple(choice_of(item) for item in examples.get(subject, ())[: self.config.shots])
            if len(shots) < self.config.shots:
                raise UserError(f"options.shots: {self.config.shots} are wanted, '{subject}' has {len(shots)}")
            about = subject.replace("_", " ")
            rows += [
                {"id": f"{subject}-{split}-{index}", "topic": subject, **harness_row(choice_of(item), about, shots)}
                for index, item in enumerate(items)
            ]
        return rows

    def _by_subject(self, split: str) -> dict[str, list[RawRow]]:
        files = tuple(f"{folder}/{split}{tail}" for folder in ("all", "*") for tail in ("", "-[0-9]*"))
        found: dict[str, list[RawRow]] = {}
        for item in self.read(PublishedTable("cais/mmlu", "all", split, files)):
            found.setdefault(text_of(item, "subject"), []).append(item)
        return found
