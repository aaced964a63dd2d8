"""How deep forgetting goes: three models looked at one after another, and a score for each measure."""

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
from expunge.evaluate.depth.base import Depth, Look, Stage
from expunge.models.base import LanguageModel
from expunge.models.tensor_store import StateMemory

FOLDER = "evaluate/depth"

Loader = Callable[[], LanguageModel]


def measure_depth(
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
    """Measure how far inside the unlearned model is from the original one to the retrained one.

    Each loader is called once, that of the original twice where a measure needs it; one model is held at a time.

    Args:
        names: files of `evaluate/depth`, or dotted paths of a user's own.
        load_original: the model before unlearning.
        load_unlearned: the model that is measured.
        load_retrained: a model that was taught the same without the forget rows.
        rows: forget rows. The tokens that count are those of the answer's keywords, or all of the answer.
        options: of measures by name.
        seed: of the intervals.
        progress: where to report.

    Returns:
        Name -> score: 0 where the unlearned model is still the original inside, 1 where it is like the retrained.

    Raises:
        UserError: no such measure or option, no rows, or models that differ in tokenizer, blocks or width.
    """
    session = DepthSession(names, load_original, load_retrained, rows, options=options, seed=seed, progress=progress)
    session.look(load_unlearned())
    return session.scores()[""]


class DepthSession:
    """Looks at any number of unlearned models beside one original and one retrained, which are loaded for all of them.

    At most one model is held at a time, besides those that are looked at. The arguments are those of `measure_depth`.
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
            raise UserError("depth: no forget rows to look at")
        self._measures = load_depth(names, options or {})
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
            self._turn(stage)

    def look(self, model: LanguageModel, label: str = "") -> None:
        """Keep what is needed of an unlearned model, and nothing of the model itself.

        Args:
            model: any of the same architecture.
            label: tells it from others.

        Raises:
            UserError: it differs from the others in tokenizer, blocks or width.
        """
        self._labels.append(label)
        self._look("unlearned", model, label)

    def scores(self) -> dict[str, dict[str, Score]]:
        """Label -> name -> score; no model can be looked at any more."""
        self._turn("original")
        clusters = [row.unit for row in self._rows]
        return {
            label: {name: measure.score(label, clusters, self._seed) for name, measure in self._measures.items()}
            for label in self._labels
        }

    def _turn(self, stage: Stage) -> None:
        if any(stage in measure.stages for measure in self._measures.values()):
            self._look(stage, self._loaders[stage]())

    def _look(self, stage: Stage, model: LanguageModel, label: str = "") -> None:
        found = [counted(model.encoder, row) for row in self._rows], _shape(model)
        if self._first is not None and self._first != found:
            raise UserError(f"depth: '{model.source}' differs from the rest in tokenizer, blocks or width")
        self._first = found
        look = Look(model, found[0], label, self._memory)
        wanting = {name: one for name, one in self._measures.items() if stage in one.stages}
        with self._progress.bar(f"depth, {stage.replace('_', ' ')}", len(wanting)) as bar:
            for name, measure in wanting.items():
                bar.note(name)
                measure.look(stage, look)
                bar.advance()


def load_depth(names: Sequence[str], options: Mapping[str, Mapping[str, Any]]) -> dict[str, Depth]:
    """Measures by name, with their options.

    Raises:
        UserError: no such measure, or an option that it does not have.
    """
    kinds = {name: plugins.find(FOLDER, name, Depth) for name in (*names, *options)}  # type: ignore[type-abstract]
    configs = {name: check(kind.Config, options.get(name, {}), f"depth.options.{name}") for name, kind in kinds.items()}
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
