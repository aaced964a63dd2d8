"""Tiny folders laid out as the repositories of published data sets are, with a few rows of our own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow
from pyarrow import parquet

Row = dict[str, Any]
ATTACKS = (
    "prefix injection",
    "affirmative suffix",
    "role playing",
    "reverse query",
    "synonym manipulation",
    "background hint",
    "incontext learning",
    "cross lingual",
    "multiple choice",
)


def write(path: Path, rows: Sequence[Row]) -> None:
    """Rows in the format of the path's ending; `.json` is a list."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows, indent=1), encoding="utf-8")
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


def tofu(folder: Path, facts: dict[str, list[Row]]) -> Path:
    """As `locuslab/TOFU`: JSON lines under `.json`."""
    plain = ("question", "answer")
    full = (*plain, "paraphrased_question", "paraphrased_answer", "perturbed_answer")
    groups = {"forget": facts["forget"], "retain": facts["retain"], "other": facts["neighbour"]}
    names = {
        **{f"forget{share}{kind}": "forget" for share in ("01", "05", "10") for kind in ("", "_perturbed")},
        **dict.fromkeys(("retain90", "retain95", "retain99", "retain_perturbed"), "retain"),
        **{f"{name}{kind}": "other" for name in ("real_authors", "world_facts") for kind in ("", "_perturbed")},
        **{f"holdout{share}": "other" for share in ("01", "05", "10")},
        "full": "retain",
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, group in names.items():
        fields = full if name.endswith("_perturbed") else plain
        lines = [json.dumps({field: row[field] for field in fields}) for row in groups[group]]
        (folder / f"{name}.json").write_text("\n".join(lines), encoding="utf-8")
    return folder


def muse(folder: Path, facts: dict[str, list[Row]]) -> Path:
    """As `muse-bench/MUSE-News`: a sub-folder a configuration, Parquet."""
    parts = {"forget": facts["forget"], "retain": facts["retain"], "holdout": facts["neighbour"]}
    for part in ("forget", "retain"):
        pairs = [{"question": row["question"], "answer": row["answer"]} for row in parts[part]]
        write(folder / f"knowmem/{part}_qa-00000-of-00001.parquet", pairs)
        write(folder / f"knowmem/{part}_qa_icl-00000-of-00001.parquet", (pairs * 10)[:10])
    halves = [{"prompt": row["question"], "gt": row["answer"]} for row in parts["forget"]]
    write(folder / "verbmem/forget-00000-of-00001.parquet", halves)
    texts = {part: [{"text": f"{row['question']} {row['answer']}"} for row in rows] for part, rows in parts.items()}
    for part, rows in texts.items():
        write(folder / f"privleak/{part}-00000-of-00001.parquet", rows)
    for config in ("raw", "train"):
        for part in ("forget", "retain1", "retain2", *(("holdout",) if config == "raw" else ())):
            middle = len(texts["forget"]) // 2
            rows = texts[part.rstrip("12")]
            write(folder / f"{config}/{part}-00000-of-00002.parquet", rows[:middle])
            write(folder / f"{config}/{part}-00001-of-00002.parquet", rows[middle:])
    for fold in range(1, 5):  # one set grows, the other is cut in parts
        write(folder / f"scal/forget_{fold}-00000-of-00001.parquet", texts["forget"][:fold])
        write(folder / f"sust/forget_{fold}-00000-of-00001.parquet", texts["forget"][fold - 1 : fold])
    return folder


def choices(facts: Sequence[Row]) -> list[Row]:
    """Four-way questions in the published fields; the right choice moves on from row to row."""
    rows = []
    for place, row in enumerate(facts):
        options = list(row["perturbed_answer"][:3])
        options.insert(place % 4, row["paraphrased_answer"])
        rows.append({"question": row["question"], "choices": options, "answer": place % 4})
    return rows


def wmdp(folder: Path, facts: dict[str, list[Row]]) -> Path:
    """As `cais/wmdp` (Parquet) beside the corpora as JSON lines."""
    for domain in ("bio", "chem", "cyber"):
        write(folder / f"wmdp-{domain}/test-00000-of-00001.parquet", choices(facts["forget"]))
    for name in ("bio-forget", "bio-retain", "cyber-forget", "cyber-retain"):
        part = name.rpartition("-")[2]
        texts = [{"title": "T", "text": f"{row['question']} {row['answer']}"} for row in facts[part]]
        write(folder / f"{name}-corpus.jsonl", [*texts, {"title": "Blank", "text": " "}])
    return folder


def mmlu(folder: Path, facts: dict[str, list[Row]]) -> Path:
    """As `cais/mmlu`: all subjects in one table a split."""
    rows = choices(facts["retain"])
    for place, row in enumerate(rows):
        row["subject"] = ("abstract_algebra", "world_history")[place % 2]
    for split in ("test", "validation", "dev"):
        write(folder / f"all/{split}-00000-of-00001.parquet", rows)
    return folder


def rwku(folder: Path, facts: dict[str, list[Row]]) -> Path:
    """As `jinzhuoran/RWKU`: lists below `All`."""
    forget, near = facts["forget"], facts["neighbour"]

    def probes(rows: Sequence[Row], level: str, kinds: Sequence[str]) -> list[Row]:
        return [
            {
                "subject": row["subject"],
                "query": row["question"],
                "answer": row["keywords"][0],
                "level": level,
                "type": kinds[place % len(kinds)],
            }
            for place, row in enumerate(rows)
        ]

    write(folder / "All/forget_level1.json", probes(forget, "1", ["blank"]))
    write(folder / "All/forget_level2.json", probes(forget, "2", ["question"]))
    write(folder / "All/forget_level3.json", probes([*forget, *near][:9], "3", ATTACKS))
    write(folder / "All/neighbor_level1.json", probes(near, "1", ["blank"]))
    write(folder / "All/neighbor_level2.json", probes(near, "2", ["question"]))
    subject = {"subject": forget[0]["subject"]}
    for name, rows in {"forget_mia": forget, "retain_mia": near, "passage": forget, "positive": forget}.items():
        texts = [{"subject": row["subject"], "text": f"{row['question']} {row['answer']}"} for row in rows]
        write(folder / f"All/{name}.json", texts)
    four = choices(facts["retain"])
    general = [{**row, **subject, "task": "world_history", "examples": four[:2]} for row in four[2:6]]
    write(folder / "All/retain_mmlu.json", general)
    asked = [{**subject, "question": row["question"], "answer": row["answer"]} for row in facts["retain"][:4]]
    write(
        folder / "All/retain_bbh.json",
        [{**row, "task": "dates", "cot": "Q: 1+1?\nA: the answer is 2."} for row in asked],
    )
    targets = [{"choices": row["choices"], "labels": [int(n == row["answer"]) for n in range(4)]} for row in four[:4]]
    truthful = [
        {**subject, "question": row["question"], "mc1_targets": one} for row, one in zip(asked, targets, strict=True)
    ]
    write(folder / "All/truthful.json", truthful)
    trivia = [{**subject, "question": row["question"], "answers": row["keywords"]} for row in facts["retain"][:4]]
    write(folder / "All/triviaqa.json", trivia)
    fluent = [{**subject, "instruction": row["question"], "output": row["answer"]} for row in facts["retain"][:4]]
    write(folder / "All/fluency.json", fluent)
    return folder


LAYOUTS = {"tofu": tofu, "muse": muse, "wmdp": wmdp, "mmlu": mmlu, "rwku": rwku}
"""Source -> how to write its folder."""
