"""What all commands share: the console, the progress bars, quiet libraries."""

from __future__ import annotations

import json
import os
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel

from expunge.core.progress import Bar, Progress
from expunge.core.records import Record
from expunge.reports.terminal import Terminal


def console() -> Terminal:
    """Standard output."""
    return Terminal()


def print_json(value: Any) -> None:
    """One JSON document on standard output, in characters that the stream can write."""
    text = json.dumps(value, indent=1, ensure_ascii=False)
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = json.dumps(value, indent=1)
    print(text)


def print_record(record: BaseModel | Sequence[BaseModel]) -> None:
    """A record, or an array of records, as JSON on standard output."""
    some = [record] if isinstance(record, BaseModel) else record
    values = [json.loads(one.model_dump_json()) for one in some]
    print_json(values[0] if isinstance(record, BaseModel) else values)


def print_rows(rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    """A listing: a table for people, an array of objects for programs."""
    if as_json:
        print_json(list(rows))
        return
    cells = [[str(value) if value not in (None, "") else "-" for value in row.values()] for row in rows]
    console().table(list(rows[0]) if rows else [], cells)


def print_result(record: Record, verbose: bool = True) -> None:
    """A run's verdict, its warnings, its table, and what was not tested."""
    from expunge.reports.score_table import print_table
    from expunge.reports.squeeze import print_squeeze
    from expunge.reports.verdict import verdict

    found = verdict(record)
    out = console()
    out.prose(f"\n{found.sentence}", style="bold")
    if found.guard:
        out.prose(found.guard)
    print_warnings(record.warnings, out)
    print_table(record, out)
    if record.squeeze is not None:
        print_squeeze(record.squeeze, out)
    if record.robustness is not None:
        from expunge.reports.robustness import robustness_section, shortened
        from expunge.reports.section import print_section

        section = robustness_section(record.robustness)
        print_section(section if verbose else shortened(section), out)
    out.prose(f"\nNot tested: {', '.join(found.not_tested) or 'all other ways'}.", style="dim")


def print_warnings(warnings: Sequence[str], out: Terminal) -> None:
    """What the scores cannot mean, each in a line of its own."""
    for warning in warnings:
        out.prose(f"Warning: {warning}", style="bold yellow")


def quiet_libraries() -> None:
    """Keep other libraries' bars and warnings off the user's screen; ours say what matters."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TQDM_DISABLE", "1")
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=UserWarning)
    import transformers

    logging: Any = transformers.utils.logging
    logging.set_verbosity_error()
    logging.disable_progress_bar()


class DrawnProgress(Progress):
    """Bars with the remaining time, on standard error."""

    def __init__(self) -> None:
        self._console = Terminal(stderr=True)

    @contextmanager
    def bar(self, label: str, total: float) -> Iterator[Bar]:
        """A task of `total` units."""
        from rich import progress

        columns = (
            progress.TextColumn("{task.description:<17}", markup=False),
            progress.BarColumn(bar_width=24),
            progress.TaskProgressColumn(),
            progress.TimeElapsedColumn(),
            progress.TextColumn("left"),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[note]}", markup=False),
        )
        with progress.Progress(*columns, console=self._console) as drawn:
            yield _DrawnBar(drawn, drawn.add_task(label, total=total, note=""))

    def say(self, text: str) -> None:
        """One line for the user."""
        self._console.prose(text)

    def quote(self, text: str, without: str) -> None:
        """Data are quoted on a terminal only: anything else may be a log, which outlives the run."""
        self._console.print(text if self._console.is_terminal else without, highlight=False, markup=False)


class _DrawnBar(Bar):
    def __init__(self, drawn: Any, task: Any) -> None:
        self._drawn = drawn
        self._task = task

    def advance(self, amount: float = 1) -> None:
        self._drawn.advance(self._task, amount)

    def note(self, text: str) -> None:
        self._drawn.update(self._task, note=text)


def progress_for(quiet: bool) -> Progress:
    """Bars, or silence; of several processes, only the first draws."""
    return Progress() if quiet or os.environ.get("RANK", "0") != "0" else DrawnProgress()
