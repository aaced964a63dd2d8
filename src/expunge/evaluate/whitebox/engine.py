"""Runs white-box measures: loads the original, retrained and unlearned models one after another and scores them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from expunge.core import plugins
from expunge.core.errors import UserError
from expunge.core.progress import SILENT, Progress
from expunge.core.records import Score
from expunge.core.validation import check
from expunge.data.encode import Encoded, Encoder
from expunge.data.example import Example
from expunge.evaluate.whitebox.base import Observed, Stage, WhiteBoxMeasure
from expunge.models.base import LanguageModel
from expunge.models.tensor_store import StateMemory

FOLDER = "evaluate/whitebox"

Loader = Callable[[], LanguageModel]


def measure_whitebox(
    names: Sequence[str],
    load_original: Loader,
    load_unlearned: Loader,
    load_retrained: Loader,
    rows: Sequence[Example],
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    seed: int = 0,
    progress: Progress = SILENT,
) -> dict[str, Score]:
    """Measure how far the unlearned model has moved inside, from the original model to the retrained one.

    One model is in memory at a time. Each loader is called once, that of the original twice if a measure needs it.

    Args:
        names: files of `evaluate/whitebox`, or dotted paths of a user's own.
        load_original: the model before unlearning.
        load_unlearned: the model that is measured.
        load_retrained: a model trained on the same data without the forget rows.
        rows: forget rows. The tokens that count are those of the answer's keywords, or else all of the answer.
        options: of measures by name.
        seed: of the intervals.
        progress: where to report.

    Returns:
        Name -> score: 0 if the unlearned model still is the original inside, 1 if it is like the retrained model.

    Raises:
        UserError: no such measure or option, no rows, or models that differ in tokenizer, blocks or width.
    """
    session = WhiteBoxSession(names, load_original, load_retrained, rows, options=options, seed=seed, progress=progress)
    session.observe(load_unlearned())
    return session.scores()[""]


class WhiteBoxSession:
    """Measures any number of unlearned models against one original and one retrained model, each loaded once for all.

    Besides the model passed to `observe`, at most one is in memory. The arguments are those of `measure_whitebox`.
    """

    def __init__(
        self,
        names: Sequence[str],
        load_original: Loader,
        load_retrained: Loader,
        rows: Sequence[Example],
        *,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        seed: int = 0,
        progress: Progress = SILENT,
    ) -> None:
        if not rows:
            raise UserError("whitebox: there are no forget rows to measure on")
        self._measures = load_whitebox(names, options or {})
        self._loaders: dict[Stage, Loader] = {
            "original_first": load_original,
            "retrained": load_retrained,
            "original": load_original,
        }
        self._rows = rows
        self._seed = seed
        self._progress = progress
        self._first: tuple[list[Encoded], tuple[int, int]] | None = None
        self._labels: list[str] = []
        self._memory = StateMemory()
        for stage in ("original_first", "retrained"):
            self._load_and_observe(stage)

    def observe(self, model: LanguageModel, label: str = "") -> None:
        """Keep what the measures need of an unlearned model, and no reference to the model itself.

        Args:
            model: any of the same architecture.
            label: key of its scores.

        Raises:
            UserError: it differs from the other models in tokenizer, blocks or width.
        """
        self._labels.append(label)
        self._observe("unlearned", model, label)

    def scores(self) -> dict[str, dict[str, Score]]:
        """Label -> name -> score; ends the session."""
        self._load_and_observe("original")
        clusters = [row.unit for row in self._rows]
        return {
            label: {name: measure.score(label, clusters, self._seed) for name, measure in self._measures.items()}
            for label in self._labels
        }

    def _load_and_observe(self, stage: Stage) -> None:
        if any(stage in measure.stages for measure in self._measures.values()):
            self._observe(stage, self._loaders[stage]())

    def _observe(self, stage: Stage, model: LanguageModel, label: str = "") -> None:
        rows, shape = [counted(model.encoder, row) for row in self._rows], _shape(model)
        if self._first not in (None, (rows, shape)):
            raise UserError(
                f"whitebox: '{model.source}' differs from the other models in tokenizer, blocks or width; "
                "all must have one architecture"
            )
        self._first = rows, shape
        observed = Observed(model, rows, label, self._memory)
        measures = {name: one for name, one in self._measures.items() if stage in one.stages}
        with self._progress.bar(f"white-box, {stage.replace('_', ' ')}", len(measures)) as bar:
            for name, measure in measures.items():
                bar.note(name)
                measure.observe(stage, observed)
                bar.advance()


def load_whitebox(names: Sequence[str], options: Mapping[str, Mapping[str, Any]]) -> dict[str, WhiteBoxMeasure]:
    """White-box measures by name, with their options.

    Raises:
        UserError: no such measure, or an option that it does not have.
    """
    kinds = {name: plugins.find(FOLDER, name, WhiteBoxMeasure) for name in (*names, *options)}  # type: ignore[type-abstract]
    configs = {
        name: check(kind.Config, options.get(name, {}), f"whitebox.options.{name}") for name, kind in kinds.items()
    }
    return {name: kinds[name](configs[name]) for name in names}


def counted(encoder: Encoder, row: Example) -> Encoded:
    """A row whose labels are the answer's keyword tokens, or else all of the answer without its end token."""
    encoded = encoder.keywords(row)
    if encoded.targets or row.text is not None or len(encoded.labels) < 2:
        return encoded
    return Encoded(encoded.ids[:-1], encoded.num_prompt)


def _shape(model: LanguageModel) -> tuple[int, int]:
    """Blocks and width."""
    return len(model.blocks()), int(model.base.config.get_text_config().hidden_size)
