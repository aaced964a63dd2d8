"""What all commands share: the console, the progress bars, quiet libraries."""

from __future__ import annotations

import json
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from expunge.core.progress import Bar, Progress
from expunge.core.records import Record


def console() -> Console:
    """Standard output."""
    return Console()


def print_json(value: Any) -> None:
    """One JSON document on standard output."""
    print(json.dumps(value, indent=1, ensure_ascii=False))


def print_rows(rows: Sequence[Mapping[str, Any]], as_json: bool) -> None:
    """A listing: a table for people, an array of objects for programs."""
    if as_json:
        print_json(list(rows))
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in rows[0] if rows else ():
        table.add_column(name, overflow="fold", no_wrap=name == "name")
    for row in rows:
        table.add_row(*(str(value) if value not in (None, "") else "-" for value in row.values()))
    console().print(table)


def print_result(record: Record) -> None:
    """A run's verdict, its table, and what was not tested."""
    from expunge.reports.squeeze import print_squeeze
    from expunge.reports.table import print_table
    from expunge.reports.verdict import verdict

    found = verdict(record)
    out = console()
    out.print(f"\n[bold]{escape(found.sentence)}[/bold]", highlight=False)
    if found.guard:
        out.print(escape(found.guard), highlight=False)
    print_table(record, out)
    if record.squeeze is not None:
        print_squeeze(record.squeeze, out)
    if record.robustness is not None:
        from expunge.reports.finding import print_finding
        from expunge.reports.robustness import finding

        print_finding(finding(record.robustness), out)
    out.print(f"\nNot tested: {', '.join(found.not_tested) or 'all other ways'}.", highlight=False, style="dim")


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
        self._console = Console(stderr=True)

    @contextmanager
    def bar(self, label: str, total: float) -> Iterator[Bar]:
        """A task of `total` units."""
        from rich import progress

        columns = (
            progress.TextColumn("{task.description:<17}"),
            progress.BarColumn(bar_width=24),
            progress.TaskProgressColumn(),
            progress.TimeElapsedColumn(),
            progress.TextColumn("left"),
            progress.TimeRemainingColumn(),
            progress.TextColumn("{task.fields[note]}"),
        )
        with progress.Progress(*columns, console=self._console) as drawn:
            yield _DrawnBar(drawn, drawn.add_task(label, total=total, note=""))

    def say(self, text: str) -> None:
        """One line for the user."""
        self._console.print(text, highlight=False, markup=False)

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
    """Bars, or silence."""
    return Progress() if quiet else DrawnProgress()
