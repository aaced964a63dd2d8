"""wmdp: questions that stand for hazardous knowledge, and texts to forget and keep (arXiv:2403.03218)."""

from __future__ import annotations

import json
from typing import ClassVar

from pydantic import Field

from expunge.data.sources._harness import choice_of, harness_row
from expunge.data.sources._tables import Published, PublishedTable, documents

_ABOUT = {"bio": "biology", "chem": "chemistry", "cyber": "cybersecurity"}
_GATED = "cais/wmdp-bio-forget-corpus"
"""Access to it must be requested."""


class Wmdp(Published):
    """`bio`, `chem` and `cyber` are the multiple-choice questions, asked as the harness asks; the others are texts.

    A folder holds the files of `cais/wmdp` (`wmdp-bio/test*`, or `bio_questions.json`) and of the corpora
    (`cyber-forget-corpus/train*`, or `cyber-forget-corpus.jsonl`). A text is the `text` of a JSON line, and the line
    only with `lines`: the code of the release trains on the lines of all corpora but `bio_forget`.
    """

    class Config(Published.Config):
        """Where the files are, and what a text is."""

        lines: bool = Field(
            default=False,
            description="Train on the texts as lines of JSON, as the code of RMU does with all corpora but bio_forget.",
        )

    splits: ClassVar = (*_ABOUT, "bio_forget", "bio_retain", "cyber_forget", "cyber_retain")

    def rows(self, split: str) -> list[dict[str, object]]:
        """Rows of one split, in order."""
        if split in _ABOUT:
            return self._questions(split)
        name, about = f"{split.replace('_', '-')}-corpus", _ABOUT[split.partition("_")[0]]
        files = (f"{name}/train", f"{name}/train-[0-9]*", name)
        if split == "bio_forget":
            table = PublishedTable(_GATED, None, "train", (*files, "bio_remove_dataset"))
        else:
            table = PublishedTable("cais/wmdp-corpora", name, "train", files)
        rows = documents(self.read(table), split)
        if self.config.lines and split != "bio_forget":
            rows = [{**row, "text": json.dumps({"text": row["text"]}, ensure_ascii=False)} for row in rows]
        return [{"topic": about, **row} for row in rows]

    def _questions(self, domain: str) -> list[dict[str, object]]:
        config = f"wmdp-{domain}"
        files = (f"{config}/test", f"{config}/test-[0-9]*", config, f"{domain}_questions")
        about = _ABOUT[domain]
        return [
            {"id": f"{config}-{index}", "topic": about, **harness_row(choice_of(item), about)}
            for index, item in enumerate(self.read(PublishedTable("cais/wmdp", config, "test", files)))
        ]
