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
from expunge.evaluate.depth.base import STAGES, Depth, Look, Stage
from expunge.models.base import LanguageModel

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

    Each loader is called once or twice, and at most one model is held at a time, unless a loader keeps its own.

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
    measures = load_depth(names, options or {})
    if not rows:
        raise UserError("depth: no forget rows to look at")
    loaders: dict[Stage, Loader] = {
        "original_first": load_original,
        "retrained": load_retrained,
        "unlearned": load_unlearned,
        "original": load_original,
    }
    turns = [stage for stage in STAGES if any(stage in measure.stages for measure in measures.values())]
    first: tuple[list[Encoded], tuple[int, int]] | None = None
    with progress.bar("looking inside", len(turns)) as bar:
        for stage in turns:
            model = loaders[stage]()
            found = [counted(model.encoder, row) for row in rows], _shape(model)
            if first is not None and first != found:
                raise UserError(f"depth: '{model.source}' differs from the rest in tokenizer, blocks or width")
            first = found
            look = Look(model, found[0])
            for measure in measures.values():
                if stage in measure.stages:
                    measure.look(stage, look)
            del model, look
            bar.advance()
    return {name: measure.score(seed) for name, measure in measures.items()}


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
