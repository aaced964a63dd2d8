"""tofu: 200 invented authors; one, five or ten percent to forget (arXiv:2401.06121)."""

from __future__ import annotations

from typing import ClassVar

from expunge.data.sources._tables import Published, PublishedTable, renamed

_SHARES = ("01", "05", "10")
_PER_AUTHOR = 20
"""Rows of one author, one after another; `real_authors`, `world_facts` and `retain_perturbed` are in no such order."""
_FIELDS = (
    "question",
    "answer",
    "paraphrased_question",
    "paraphrased_answer",
    "perturbed_answer",
    "original_answer",
)


class Tofu(Published):
    """The splits of `locuslab/TOFU` under their own names.

    A folder holds one file a split, named after it: the JSON lines of the repository (`forget01.json`), or .jsonl,
    .parquet or .csv. Paraphrases and wrong answers are in the `_perturbed` splits; `holdout` rows are of authors that
    no published model was trained on.

    On the hub, `answer` of real authors and world facts is a name or a word. The folder `data/tofu` of the code of
    arXiv:2410.08109 adds `original_answer`, a whole sentence, with which its cosine similarity and entailment compare.
    """

    splits: ClassVar = (
        *(f"forget{share}" for share in _SHARES),
        *(f"forget{share}_perturbed" for share in _SHARES),
        *(f"holdout{share}" for share in _SHARES),
        "retain90",
        "retain95",
        "retain99",
        "retain_perturbed",
        "real_authors",
        "real_authors_perturbed",
        "world_facts",
        "world_facts_perturbed",
        "full",
    )

    def rows(self, split: str) -> list[dict[str, object]]:
        """Rows of one split, in order."""
        table = PublishedTable("locuslab/TOFU", split, "train", (split,))
        fields = {name: name for name in _FIELDS}
        rows: list[dict[str, object]] = [
            {"id": f"{split}-{index}", **renamed(item, fields, ("question", "answer"))}
            for index, item in enumerate(self.read(table))
        ]
        if not split.startswith(("real_authors", "world_facts", "retain_perturbed")):
            for index, row in enumerate(rows):
                row["cluster"] = f"author {index // _PER_AUTHOR}"
        return rows
