"""muse: news and novels, known word for word, in fact, or as members (arXiv:2407.06460)."""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from expunge.core.errors import UserError
from expunge.data.sources._tables import Published, PublishedTable, documents, renamed, text_of

_FOLDS = ("1", "2", "3", "4")
_ONLY_NEWS = ("scal", "sust")


class Muse(Published):
    """`muse-bench/MUSE-News` and `MUSE-Books`; a split is `configuration_split` of the repository.

    `knowmem_*` rows are raw prompts with answered examples before the question, `verbmem_forget` a passage with its
    continuation, all others documents. A folder has the repository's sub-folders (`knowmem/forget_qa*`), or those of
    the original code (`knowmem/forget_qa.json`, `raw/forget.txt`).
    """

    class Config(Published.Config):
        """Which corpus, and how its questions are asked."""

        corpus: Literal["news", "books"] = Field(default="news", description="The corpus: news or books.")
        shots: int = Field(default=10, ge=0, description="Answered examples before each question.")
        trailing_blank: bool = Field(
            default=True, description="End the prompt in `Answer: `, as the original does; false: in `Answer:`."
        )

    splits: ClassVar = (
        "knowmem_forget",
        "knowmem_retain",
        "verbmem_forget",
        *(f"privleak_{split}" for split in ("forget", "retain", "holdout")),
        *(f"raw_{split}" for split in ("forget", "retain1", "retain2", "holdout")),
        *(f"train_{split}" for split in ("forget", "retain1", "retain2")),
        *(f"{config}_{fold}" for config in _ONLY_NEWS for fold in _FOLDS),
    )

    def rows(self, split: str) -> list[dict[str, object]]:
        """Rows of one split, in order."""
        config, _, part = split.partition("_")
        prefix = f"{self.config.corpus}-{split}"
        if config == "knowmem":
            return self._questions(part, prefix)
        if config in _ONLY_NEWS:
            if self.config.corpus == "books":
                raise UserError(f"MUSE-Books has no split '{split}': only the news corpus is folded")
            part = f"forget_{part}"
        found = self.read(self._table(config, part))
        if config == "verbmem":
            fields = {"prompt": "prompt", "answer": "gt"}
            rows = [renamed(item, fields, ("prompt", "answer")) for item in found]
            return [{"id": f"{prefix}-{index}", **row} for index, row in enumerate(rows)]
        return documents(found, prefix)

    def _questions(self, part: str, prefix: str) -> list[dict[str, object]]:
        found = self.read(self._table("knowmem", f"{part}_qa"))
        examples = self.read(self._table("knowmem", f"{part}_qa_icl")) if self.config.shots else []
        if len(examples) < self.config.shots:
            raise UserError(f"options.shots: {self.config.shots} examples are wanted, MUSE has {len(examples)}")
        shots = "".join(
            f"Question: {text_of(item, 'question')}\nAnswer: {text_of(item, 'answer')}\n\n"
            for item in examples[: self.config.shots]
        )
        end = "Answer: " if self.config.trailing_blank else "Answer:"
        return [
            {
                "id": f"{prefix}-{index}",
                "prompt": f"{shots}Question: {text_of(item, 'question')}\n{end}",
                "answer": text_of(item, "answer"),
            }
            for index, item in enumerate(found)
        ]

    def _table(self, config: str, part: str) -> PublishedTable:
        own = part.replace("retain", "retain2", 1) if config in ("knowmem", "privleak") else part
        files = tuple(dict.fromkeys(f"{config}/{name}{tail}" for name in (part, own) for tail in ("", "-[0-9]*")))
        return PublishedTable(f"muse-bench/MUSE-{self.config.corpus.title()}", config, part, files)
