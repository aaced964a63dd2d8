"""The Python API. Models: names, paths or loaded networks; data: names, paths, lists of dicts, `datasets.Dataset`s."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge.config import load_run, read_settings
from expunge.core.errors import UserError, near
from expunge.core.permission import granted
from expunge.core.progress import SILENT, Progress
from expunge.core.records import REPORT_FILE, Aggregates, Evaluation, Record, Scores
from expunge.core.schema import SLOTS
from expunge.core.validation import check
from expunge.evaluate.config import EvaluateConfig
from expunge.inputs import (
    Rows,
    as_path,
    as_progress,
    as_seed,
    as_settings,
    as_table,
    check_model,
    check_tokenizer,
    is_loaded,
    model_name,
    named_splits,
    plain,
    read_splits,
    wrap,
)
from expunge.models.caller_state import Scratch, lent
from expunge.reports.verdict import verdict
from expunge.workflows.evaluate import data_plan, evaluate_models
from expunge.workflows.run import execute


@dataclass(frozen=True)
class Unlearned:
    """An unlearned model with the evidence of what it forgot."""

    model: Any
    """The transformers model; a peft model where an adapter was trained on a model by name, and is saved as one."""
    tokenizer: Any
    record: Record
    run_dir: Path
    """Directory of the run. Without `out` it is temporary: it is deleted with the last copy of this object."""
    scratch: Scratch | None = None
    """Deletes a temporary directory together with this object."""

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
        """One sentence: how much was forgotten, and at what cost."""
        return verdict(self.record).sentence

    def report(self, path: str | Path) -> Path:
        """Copy the HTML report to a path.

        Raises:
            UserError: the run's directory is gone.
        """
        page = self.run_dir / REPORT_FILE
        if not page.is_file():
            raise UserError(f"{page}: is gone; give `out` to keep a run's directory")
        return Path(shutil.copyfile(page, path))


def unlearn(
    model: Any = "smollm2-135m",
    *,
    forget: Rows | None = None,
    retain: Rows | None = None,
    neighbour: Rows | None = None,
    general: Rows | None = None,
    holdout: Rows | None = None,
    recipe: str | Path = "npo_local",
    tokenizer: Any = None,
    out: str | Path | None = None,
    seed: int = 0,
    settings: Sequence[str] = (),
    slots: Mapping[str, Any] | None = None,
    progress: Progress | None = SILENT,
    trust: bool = False,
    **tables: Any,
) -> Unlearned:
    """Make a model forget, and measure it before and after.

    A loaded model is changed in place: its weights afterwards are the unlearned ones. An adapter that a peft model
    brings is merged first, and one that `model.adapter = "lora"` trained on a loaded model afterwards, since no other
    process could name its base. Everything else of it (train or eval mode, hooks, gradients, `requires_grad`, dtype)
    and the state of the random generators are as before. If the call fails, so are the weights; where there is no
    memory for a copy of them, the error says that they may have changed.

    Args:
        model: embedded name, path, hub id, or a loaded causal LM, which is changed in place.
        forget: rows to forget: a name (`people:forget`), a path, a list of dicts, a `datasets.Dataset`, or a table of
            the run file such as `{"name": "facts.jsonl", "limit": 20}`.
        retain: rows to keep.
        neighbour: rows near the forgotten ones, only measured.
        general: other knowledge, only measured.
        holdout: rows like those to forget that no model was trained on, only measured.
        recipe: named combination of the slots, or a path to a recipe file.
        tokenizer: needed with a loaded model.
        out: run directory; without one a temporary directory is used, which is deleted with the last reference to the
            result, or when Python ends.
        seed: feeds every random choice.
        settings: `a.b=c` strings, as on the command line.
        slots: slot -> filler or table, e.g. `{"forget": {"name": "npo", "beta": 0.2}, "retain": "kl"}`: `forget` and
            `retain` above are rows.
        progress: where to report.
        trust: accept classes, endpoints and `trust_remote_code` that a recipe file names; what the caller names in
            arguments is accepted anyway.
        **tables: other tables of the run file, e.g. `train={"epochs": 3}`; `data={"holdout": rows}` names splits too,
            and `data={"forget": {"limit": 20, "fields": {...}}}` adds to a split that is named above.

    Raises:
        UserError: anything that the command would refuse too.
    """
    progress, settings, seed = as_progress(progress), as_settings(settings), as_seed(seed)
    folder = None if out is None else as_path(out, "out")
    given = {"forget": forget, "retain": retain, "neighbour": neighbour, "general": general, "holdout": holdout}
    tables = {name: plain(table) for name, table in tables.items() if name != "data"} | {"data": tables.get("data")}
    named, rows = named_splits(given, as_table(tables["data"], "data"))
    own = as_table(slots, "slots")
    if unknown := sorted(set(own) - set(SLOTS)):
        raise UserError(f"slots: no slot '{unknown[0]}'{near(unknown[0], SLOTS)}")
    if twice := sorted(set(own) & set(tables)):
        raise UserError(f"slots.{twice[0]}: is given as a table too; name it once")
    check_model(model, "model")
    configured = as_table(tables.get("model"), "model")
    options = {
        **tables,
        **{slot: {"name": one} if isinstance(one, str) else plain(one) for slot, one in own.items()},
        "recipe": str(recipe) if isinstance(recipe, Path) else recipe,
        "seed": seed,
        "model": {**configured, "name": model_name(model)},
        "data": named,
    }
    with ExitStack() as stack:
        stack.enter_context(granted(options, read_settings(settings), everything=trust, tell=progress.say))
        run = load_run(None, options, settings)
        splits = read_splits(rows, run.data)
        if is_loaded(model):
            check_tokenizer(tokenizer)
        stack.enter_context(lent(changed=model))
        language_model = wrap(model, tokenizer, run.model) if is_loaded(model) else None
        scratch = None
        if folder is None:
            made = Path(tempfile.mkdtemp(prefix="expunge-"))
            scratch, folder = Scratch(made), made / "run"
        result = execute(
            run, folder, model=language_model, splits=splits, command="expunge.unlearn(...)", progress=progress
        )
    assert result.model is not None
    return Unlearned(result.model.network, result.model.tokenizer, result.record, folder, scratch)


def measure(
    model: Any,
    data: Mapping[str, Rows],
    *,
    tokenizer: Any = None,
    seed: int = 0,
    config: EvaluateConfig | Mapping[str, Any] | None = None,
    model_config: Mapping[str, Any] | None = None,
    original: Any = None,
    reference: Any = None,
    progress: Progress | None = SILENT,
) -> Evaluation:
    """Score any model on any data: no training. Loaded models and the random generators are left as they were.

    Args:
        model: embedded name, path, hub id, or a loaded causal LM.
        data: role (forget, retain, neighbour, general, holdout) -> rows.
        tokenizer: needed with a loaded model.
        seed: of sampled answers and of the intervals.
        config: what is measured: `expunge.EvaluateConfig`, or a table of its options.
        model_config: further keys of `[model]`, e.g. `{"template": "plain"}`.
        original: the model before unlearning, whose answers similarity is measured to.
        reference: a model that never saw the forget rows.
        progress: where to report.

    Raises:
        UserError: bad input.
    """
    progress, seed = as_progress(progress), as_seed(seed)
    check_model(model, "model")
    for name, other in (("original", original), ("reference", reference)):
        if other is not None:
            check_model(other, name)
    if not isinstance(config, EvaluateConfig):
        config = check(EvaluateConfig, as_table(config, "config"), "config")
    keys = as_table(model_config, "model_config")
    if not isinstance(data, Mapping) or not data:
        raise UserError(f"data: expected split -> rows, e.g. {{'forget': rows}}, got {type(data).__name__}")
    with granted({"evaluate": config.model_dump(), "model": keys}, tell=progress.say), lent(model, original, reference):
        plan = data_plan(data, config, seed, keys)
        (found,) = evaluate_models(
            [model], plan, original=original, reference=reference, tokenizer=tokenizer, progress=progress
        )
    return found.record
