"""The same from Python: names, paths, loaded models, lists of dicts or `datasets.Dataset`s."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge.config import Run, load_run, read_settings
from expunge.core.permission import granted
from expunge.core.progress import SILENT, Progress
from expunge.core.records import Aggregates, Evaluation, Record, Scores
from expunge.data.example import Splits
from expunge.data.load import splits_of
from expunge.evaluate.base import EvaluateConfig
from expunge.evaluation import data_plan, evaluate_models
from expunge.given import Rows, is_loaded, model_name, read_data, wrap
from expunge.reports.verdict import verdict
from expunge.run import REPORT_FILE, execute


@dataclass(frozen=True)
class Unlearned:
    """An unlearned model with the evidence of what it forgot."""

    model: Any
    """The transformers model (a peft model when an adapter was trained)."""
    tokenizer: Any
    record: Record
    run_dir: Path

    @property
    def scores(self) -> dict[str, Scores]:
        """`scores["after"]["forget"]["keyword_recall"].value`, and the same for `before`."""
        return {"before": self.record.before, "after": self.record.after}

    @property
    def aggregates(self) -> dict[str, Aggregates]:
        """`aggregates["after"]["fe5"].value`, and the same for `before`."""
        return {"before": self.record.aggregates_before, "after": self.record.aggregates_after}

    @property
    def verdict(self) -> str:
        """One sentence: what was forgotten and what it cost."""
        return verdict(self.record).sentence

    def report(self, path: str | Path) -> Path:
        """Copy the HTML report to a path."""
        return Path(shutil.copyfile(self.run_dir / REPORT_FILE, path))


def unlearn(
    model: Any = "smollm2-135m",
    *,
    forget: Rows,
    retain: Rows,
    neighbour: Rows | None = None,
    general: Rows | None = None,
    recipe: str = "npo_local",
    tokenizer: Any = None,
    out: str | Path | None = None,
    seed: int = 0,
    settings: Sequence[str] = (),
    progress: Progress = SILENT,
    trust: bool = False,
    **tables: Any,
) -> Unlearned:
    """Make a model forget, and measure it before and after.

    Args:
        model: embedded name, path, hub id, or a loaded causal LM, which is changed in place.
        forget: rows to forget: a name (`people:forget`), a path, a list of dicts or a `datasets.Dataset`.
        retain: rows to keep.
        neighbour: rows near the forgotten ones, only measured.
        general: other knowledge, only measured.
        recipe: named combination of the four slots.
        tokenizer: needed with a loaded model.
        out: run directory; None takes a temporary one.
        seed: feeds every random choice.
        settings: `a.b=c` strings, as on the command line.
        progress: where to report.
        trust: accept classes, endpoints and `trust_remote_code` that a recipe file names; what the caller names in
            arguments is accepted anyway.
        **tables: tables of the run file, e.g. `train={"epochs": 3}`, `forget={...}` aside.

    Raises:
        UserError: anything that the command would refuse too.
    """
    given = {"forget": forget, "retain": retain, "neighbour": neighbour, "general": general}
    rows = {name: value for name, value in given.items() if value is not None}
    named = {
        name: str(value) if isinstance(value, str | Path) else f"given from Python ({name})"
        for name, value in rows.items()
    }
    loaded = is_loaded(model)
    options = {
        **tables,
        "recipe": recipe,
        "seed": seed,
        "model": {**tables.get("model", {}), "name": model_name(model)},
        "data": {
            **tables.get("data", {}),
            **{name: {"name": text} if text.startswith("given from") else text for name, text in named.items()},
        },
    }
    with granted(options, read_settings(settings), everything=trust, tell=progress.say):
        run = load_run(None, options, settings)
        splits = _splits(rows, run)
        language_model = wrap(model, tokenizer, run.model) if loaded else None
        folder = Path(out) if out is not None else Path(tempfile.mkdtemp(prefix="expunge-")) / "run"
        result = execute(
            run, folder, model=language_model, splits=splits, command="expunge.unlearn(...)", progress=progress
        )
    assert result.model is not None
    return Unlearned(result.model.network, result.model.tokenizer, result.record, folder)


def measure(
    model: Any,
    data: Mapping[str, Rows],
    *,
    tokenizer: Any = None,
    seed: int = 0,
    config: EvaluateConfig | None = None,
    model_config: Mapping[str, Any] | None = None,
    original: Any = None,
    reference: Any = None,
    progress: Progress = SILENT,
) -> Evaluation:
    """Score any model on any data: no training.

    Args:
        model: embedded name, path, hub id, or a loaded causal LM.
        data: role (forget, retain, neighbour, general, holdout) -> rows.
        tokenizer: needed with a loaded model.
        seed: of sampled answers and of the intervals.
        config: what is measured.
        model_config: further keys of `[model]`, e.g. `{"template": "plain"}`.
        original: the model before unlearning, whose answers similarity is measured to.
        reference: a model that never saw the forget rows.
        progress: where to report.

    Raises:
        UserError: bad input.
    """
    config = config or EvaluateConfig()
    typed = {"evaluate": config.model_dump(), "model": dict(model_config or {})}
    with granted(typed, tell=progress.say):
        plan = data_plan(data, config, seed, model_config or {})
        (found,) = evaluate_models(
            [model], plan, original=original, reference=reference, tokenizer=tokenizer, progress=progress
        )
    return found.record


def _splits(rows: Mapping[str, Rows], run: Run) -> Splits:
    sources = {name: str(getattr(run.data, name)) for name in rows}
    return splits_of({name: read_data(name, value) for name, value in rows.items()}, sources)
