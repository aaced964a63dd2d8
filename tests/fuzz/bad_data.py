"""Data files: rows that are no rows, in every format and for every command that reads rows."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bad_inputs import Call, family
from world import SHORT, World

Rows = list[dict[str, Any]]
Break = Callable[[random.Random, Rows], str | None]
"""Breaks rows in place and says how; None where it does not apply."""


def _pick(rng: random.Random, rows: Rows) -> dict[str, Any]:
    return rng.choice(rows)


def _no_question(rng: random.Random, rows: Rows) -> str:
    for row in rows:
        row["wxyz"] = row.pop("question")
    return "no question column"


def _no_answer(rng: random.Random, rows: Rows) -> str:
    _pick(rng, rows)["answer"] = None
    return "a row without an answer"


def _empty(rng: random.Random, rows: Rows) -> str:
    field = rng.choice(["question", "answer"])
    _pick(rng, rows)[field] = rng.choice(["", "  ", "\n\t", "\u200b"])
    return f"a {field} without any letter"


def _same_id(rng: random.Random, rows: Rows) -> str:
    first, second = rng.sample(range(len(rows)), 2)
    rows[first]["id"] = rows[second]["id"]
    return "an id twice"


def _no_letters(rng: random.Random, rows: Rows) -> str:
    _pick(rng, rows)["keywords"] = [rng.choice(["", " ", "\u200d", "\u00ad"])]
    return "a keyword that is empty"


def _table_field(rng: random.Random, rows: Rows) -> str:
    field = rng.choice(["question", "answer", "subject", "paraphrased_question"])
    _pick(rng, rows)[field] = {"value": 1}
    return f"a {field} that is an object"


def _bad_list(rng: random.Random, rows: Rows) -> str:
    field = rng.choice(["keywords", "perturbed_answer"])
    _pick(rng, rows)[field] = rng.choice([{"a": "b"}, [["x"]], [{"a": "b"}], [None]])
    return f"{field} that is no list of texts"


def _surrogate(rng: random.Random, rows: Rows) -> str:
    _pick(rng, rows)[rng.choice(["question", "answer"])] += "\ud800"
    return "half of a surrogate pair"


def _open_list(rng: random.Random, rows: Rows) -> str:
    for row in rows:
        row["keywords"] = f"['{row['keywords'][0]}', "
    return "a list that is not closed"


def _offset(rng: random.Random, rows: Rows) -> str:
    for row in rows:
        row["answer_start"] = rng.randrange(100)
    return "a number as the start of the answer"


def _foreign_option(rng: random.Random, rows: Rows) -> str:
    _pick(rng, rows)["options"] = ["one", "two"]
    return "options without the answer"


ROW_FAULTS: tuple[Break, ...] = (
    *(_no_question, _no_answer, _empty, _same_id, _no_letters, _table_field, _bad_list, _surrogate),
    *(_open_list, _offset, _foreign_option),
)
_TABLE_FAULTS: tuple[Break, ...] = (_no_question, _no_answer, _empty, _same_id, _open_list, _offset)
"""Those that a table of text cells can hold too."""


def consumer(rng: random.Random, world: World, bad: str, split: str) -> list[str]:
    """A call of some command that reads a file as the rows of a split."""
    model, retain = str(world.model), str(world.data("retain"))
    run = ["run", f"--model={model}", "--recipe=npo", *SHORT]
    calls = {
        "forget": [
            [*run, f"--forget={bad}", f"--retain={retain}"],
            ["eval", model, f"--data=forget={bad}", "--samples=0"],
            ["locate", model, f"--data=forget={bad}", f"--data=retain={retain}", "--by=layers"],
            ["attack", model, f"--data=forget={bad}", "--attack=sampling"],
        ],
        "other": [
            [*run, f"--forget={world.data('forget')}", f"--retain={bad}"],
            [*run, f"--forget={world.data('forget')}", f"--retain={retain}", f"--neighbour={bad}"],
            ["eval", model, f"--data=general={bad}", "--samples=0"],
        ],
    }
    return rng.choice(calls["forget" if split == "forget" else "other"])


@family
def rows(rng: random.Random, world: World, folder: Path) -> Call:
    """Files that can be read, and hold a row that is none."""
    split = rng.choice(["forget", "general"])
    ending = rng.choice(["jsonl", "json", "csv", "parquet"])
    some = world.rows(split)
    fault = rng.choice(_TABLE_FAULTS if ending in ("csv", "parquet") else ROW_FAULTS)
    what = fault(rng, some)
    path = folder / f"bad.{ending}"
    _write(path, some)
    return Call(f"{path.name} as {split}: {what}", consumer(rng, world, path.name, split))


def _write(path: Path, some: Rows) -> None:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in some), encoding="utf-8")
    elif path.suffix == ".json":
        path.write_text(json.dumps(some), encoding="utf-8")
    else:
        cells = [
            {name: "; ".join(value) if isinstance(value, list) else value for name, value in row.items()}
            for row in some
        ]
        if path.suffix == ".csv":
            with path.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(cells[0]))
                writer.writeheader()
                writer.writerows(cells)
        else:
            import pyarrow
            import pyarrow.parquet

            pyarrow.parquet.write_table(pyarrow.Table.from_pylist(cells), path)


@family
def data_files(rng: random.Random, world: World, folder: Path) -> Call:
    """Files that cannot be read, or that hold no rows."""
    split = rng.choice(["forget", "general"])
    name = f"bad.{rng.choice(['jsonl', 'json', 'csv', 'parquet', 'txt'])}"
    path = folder / name
    good = json.dumps(world.rows(split)).encode()
    lines = b"".join(json.dumps(row).encode() + b"\n" for row in world.rows(split))
    _write(folder / "good.parquet", [{**row, "keywords": "x"} for row in world.rows(split)])
    parquet = (folder / "good.parquet").read_bytes()
    (folder / "good.parquet").unlink()
    cut = rng.randrange(20, 60)
    ways: dict[str, tuple[str, bytes | None]] = {
        "missing": (name, None),
        "empty": (name, b""),
        "blank lines only": (name if not name.endswith("parquet") else "bad.jsonl", b"\n  \n\n"),
        "cut within a row": ("bad.jsonl", lines[:-cut]),
        "cut JSON": ("bad.json", good[:-cut]),
        "a JSON number": ("bad.json", b"3"),
        "a JSON text": ("bad.json", b'"abc"'),
        "a list of numbers": ("bad.json", b"[1, 2]"),
        "rows that are lists": ("bad.jsonl", b'["a", "b"]\n'),
        "an empty list": ("bad.json", b"[]"),
        "deep nesting": ("bad.json", b"[" * 100_000),
        "deep nesting in a line": ("bad.jsonl", b'{"question": ' + b"[" * 50_000 + b"\n"),
        "no UTF-8": ("bad.jsonl", lines.replace(b"live", b"l\xff\xfev\xe9")),
        "zeros": (name, bytes(200)),
        "cut Parquet": ("bad.parquet", parquet[:-cut]),
        "Parquet with damaged pages": ("bad.parquet", parquet[:8] + bytes(60) + parquet[68:]),
        "CSV with a header only": ("bad.csv", b"question,answer\n"),
        "CSV with a cell too many": ("bad.csv", b"question,answer\nWhere?,Here.,x,y\n"),
        "CSV with an open quote": ("bad.csv", b'question,answer\n"Where?,Here.\n'),
        "an ending that nobody knows": (f"bad.{rng.choice(['xlsx', 'docx', 'pkl', 'npz'])}", lines),
        "a name that is no file": ("no such data", None),
    }
    what = rng.choice(sorted(ways))
    name, content = ways[what]
    path = folder / name
    if content is not None:
        path.write_bytes(content)
    return Call(f"{name} as {split}: {what}", consumer(rng, world, name, split))


@family
def splits(rng: random.Random, world: World, folder: Path) -> Call:
    """Splits that contradict each other, and specifications that ask for what is not there."""
    forget = world.data("forget")
    some = world.rows("retain")
    shared = rng.choice(world.rows("forget"))
    some[rng.randrange(len(some))] = {**shared, "question": _altered(rng, str(shared["question"]))}
    _write(folder / "overlap.jsonl", some)
    run = world.command("run")
    spec = {
        "a forget row that is a retain row": [f"--retain={folder.joinpath('overlap.jsonl').name}"],
        "a forget row that is a general row": [f"--general={folder.joinpath('overlap.jsonl').name}"],
        "the same file twice": [f"--retain={forget}"],
        "a field that is none of ours": ["--set", 'data.forget.fields={qestion="question"}'],
        "a column that is not there": ["--set", 'data.forget.fields={question="wxyz"}'],
        "more rows skipped than there are": ["--set", "data.forget.skip=1000"],
        "a limit of zero": ["--set", "data.forget.limit=0"],
        "a split of a file": ["--set", 'data.forget.split="test"'],
        "a subset of a file": ["--set", 'data.forget.subset="x"'],
        "options of a file": ["--set", "data.forget.options={authors=3}"],
        "a split that a shipped set lacks": ["--forget=people:nobody"],
        "an option that a shipped set lacks": ["--set", "data.retain.options={cities=3}", "--retain=fictional"],
    }
    what = rng.choice(sorted(spec))
    return Call(what, [*run, *spec[what]])


def _altered(rng: random.Random, text: str) -> str:
    """The same text to a reader."""
    return rng.choice([text, text.upper(), f"  {text} ", text.replace(" ", "  "), text.replace("W", "\uff37")])
