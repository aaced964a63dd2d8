"""Many runs in one folder: a second call resumes them, and runs with the same start share its measurement."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from expunge.config import Run
from expunge.core.progress import Progress
from expunge.core.records import MODEL_FOLDER, Record
from expunge.evaluate.measure import Measured
from expunge.localize.base import Selection
from expunge.workflows.run import execute


@dataclass
class Runs:
    """Carries out the runs of one command, and keeps their records but not their models."""

    command: str
    progress: Progress
    _before: dict[str, Measured] = field(default_factory=dict)
    _selections: dict[str, Selection] = field(default_factory=dict)

    def record(self, run: Run, folder: Path) -> Record:
        """The record of a run, which is carried out, resumed or read."""
        self.progress.say(f"{folder.parent.name}: {folder.name}")
        start = f"{run.seed} {run.model!r} {run.data!r}"
        measured, located = f"{start} {run.evaluate!r}", f"{start} {run.localize!r}"
        result = execute(
            run,
            folder,
            resume=folder.is_dir(),
            before=self._before.get(measured),
            selection=self._selections.get(located),
            command=self.command,
            progress=self.progress,
        )
        if result.before is not None:
            self._before[measured] = result.before
        if result.selection is not None:
            self._selections[located] = result.selection
        shutil.rmtree(folder / MODEL_FOLDER, ignore_errors=True)  # hundreds of megabytes; run.toml can make it again
        return result.record
