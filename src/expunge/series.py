"""Many runs, each found again by a second call; what the untouched model knew is measured once."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from expunge.config import Run
from expunge.core.progress import Progress
from expunge.core.records import Record
from expunge.evaluate.measure import Measured
from expunge.run import MODEL_FOLDER, execute


@dataclass
class Runs:
    """Carries out runs of one command line, and keeps their records but not their models."""

    command: str
    progress: Progress
    _before: dict[str, Measured] = field(default_factory=dict)

    def record(self, run: Run, folder: Path) -> Record:
        """The record of a run, which is carried out, gone on with, or read."""
        self.progress.say(f"{folder.parent.name}: {folder.name}")
        key = f"{run.seed} {run.model!r} {run.data!r} {run.evaluate!r}"
        result = execute(
            run,
            folder,
            resume=folder.is_dir(),
            before=self._before.get(key),
            command=self.command,
            progress=self.progress,
        )
        if result.before is not None:
            self._before[key] = result.before
        shutil.rmtree(folder / MODEL_FOLDER, ignore_errors=True)  # hundreds of megabytes, and run.toml makes it again
        return result.record
