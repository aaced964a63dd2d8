"""Any localizer on any model and data: the weights that it chooses, and its curves over the blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge.config import read_settings
from expunge.core import plugins
from expunge.core.errors import UserError, near
from expunge.core.output_dir import check_file, check_folder, write_result
from expunge.core.permission import granted
from expunge.core.progress import SILENT, Progress
from expunge.core.records import DataPrint, Frozen, SelectionPrint
from expunge.core.validation import check
from expunge.data.load import splits_of
from expunge.data.summary import say_all
from expunge.inputs import Rows, print_of, read_data, read_model
from expunge.localize.base import Localizer

DATA: Mapping[str, str] = {"forget": "people:forget", "retain": "people:retain"}
"""Default data."""
PAGE = "locate.html"
RECORD = "locate.json"
_SUFFIXES = (".html", ".json")


class Localization(Frozen):
    """The weights that one localizer chose, and why."""

    model: str
    seed: int
    config: dict[str, Any]
    data: dict[str, DataPrint]
    selection: SelectionPrint


def locate(
    model: Any,
    data: Mapping[str, Rows] = DATA,
    *,
    by: str = "causal_tracing",
    tokenizer: Any = None,
    seed: int = 0,
    settings: Sequence[str] = (),
    model_config: Mapping[str, Any] | None = None,
    progress: Progress = SILENT,
) -> Localization:
    """Choose weights as a run would; nothing is trained or written.

    Args:
        model: embedded name, path, hub id, or a loaded causal LM.
        data: `forget` and `retain` -> rows; a split that is missing is empty.
        by: name of a localizer, or a dotted path to one.
        tokenizer: needed with a loaded model.
        seed: of everything random.
        settings: `localize.a=b` strings.
        model_config: further keys of `[model]`, e.g. `{"template": "plain"}`.
        progress: where to report.

    Raises:
        UserError: bad input, or nothing to locate.
    """
    if unknown := sorted(set(data) - set(DATA)):
        raise UserError(f"data: no split '{unknown[0]}'{near(unknown[0], DATA)}")
    with granted(read_settings(settings), {"model": dict(model_config or {})}, classes=(by,)):
        localizer, options = _localizer(by, settings)
        loaded = {name: read_data(name, value) for name, value in data.items()}
        splits = splits_of(loaded, {})
        network = read_model(model, tokenizer, model_config, progress)
        say_all(progress, splits.understood)
        progress.say(f"{by} on {sum(len(one.examples) for one in loaded.values())} rows ...")
        found = localizer.select(network, splits, seed)
        sizes = {name: parameter.numel() for name, parameter in network.network.named_parameters()}
        return Localization(
            model=network.source,
            seed=seed,
            config=options,
            data={name: print_of(data[name], *one) for name, one in loaded.items()},
            selection=SelectionPrint(
                localizer=by,
                num_parameters=sum(sizes[name] for name in found.names),
                names=list(found.names),
                evidence=found.evidence,
                curves=list(found.curves),
            ),
        )


def check_target(out: Path) -> None:
    """Refuse a place that cannot be written to, before minutes of work.

    Raises:
        UserError: nothing can be written there.
    """
    (check_file if out.suffix in _SUFFIXES else check_folder)(out)


def write_localization(found: Localization, out: Path) -> list[Path]:
    """Write the record, the page, or both.

    Args:
        found: what to write.
        out: a `.json` file, a `.html` file, or a directory for both.

    Returns:
        The files.
    """
    from expunge.reports.localization import page

    sources = {name: f"{data.source}, {data.rows} rows" for name, data in found.data.items()}
    paths = [out] if out.suffix in _SUFFIXES else [out / PAGE, out / RECORD]
    texts = [
        page(found.selection, found.model, sources) if path.suffix == ".html" else found.model_dump_json(indent=1)
        for path in paths
    ]
    for path, text in zip(paths, texts, strict=True):
        write_result(path, text)
    return paths


def _localizer(by: str, settings: Sequence[str]) -> tuple[Localizer, dict[str, Any]]:
    tables = read_settings(settings, {"localize": {}})
    if unknown := sorted(set(tables) - {"localize"}):
        raise UserError(f"--set: only options of 'localize' can be set here, got '{unknown[0]}'")
    if not isinstance(tables["localize"], dict):
        raise UserError(f"--set: 'localize' is a table of options, got {tables['localize']!r}")
    kind = plugins.find("localize", by, Localizer)  # type: ignore[type-abstract]
    config = check(kind.Config, tables["localize"], "localize")
    return kind(config), config.model_dump(mode="json")
