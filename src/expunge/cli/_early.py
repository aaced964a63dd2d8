"""What can be refused before torch is imported, so that a mistyped name or path is answered within a second."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from expunge.config import Run
    from expunge.data.base import DataSpec
    from expunge.evaluate.config import EvaluateConfig


def check_plan(run: Run) -> None:
    """Refuse unknown metrics, attacks and their options, missing data files and model folders.

    Raises:
        UserError: the first mistake.
    """
    from expunge.core.schema import SPLITS

    check_measurement(run.evaluate)
    check_attacks(run.attacks.names or (), run.attacks.options)
    for option, name in (("model.name", run.model.name), ("model.reference", run.model.reference)):
        if name is not None:
            check_model(name, option)
    for split in SPLITS:
        if (spec := getattr(run.data, split)) is not None:
            check_data(spec, f"data.{split}")


def check_measurement(config: EvaluateConfig) -> None:
    """Refuse unknown metrics and options of metrics.

    Raises:
        UserError: the first mistake.
    """
    from expunge.core.plugin_options import options_class
    from expunge.core.plugins import names
    from expunge.core.validation import check
    from expunge.evaluate.aliases import named, named_set_metric

    for name in config.metrics:
        if ":" not in name:
            options_class("evaluate/metrics", named(name).metric)
    for given, options in config.options.items():
        name = named_set_metric(named(given).metric)
        folder = "evaluate/set_metrics" if name in names("evaluate/set_metrics") else "evaluate/metrics"
        if ":" not in name:
            check(options_class(folder, name), options, f"evaluate.options.{given}")


def check_attacks(names: Iterable[str], options: Mapping[str, Mapping[str, object]]) -> None:
    """Refuse unknown attacks and options of attacks.

    Raises:
        UserError: the first mistake.
    """
    from expunge.core.plugin_options import options_class
    from expunge.core.validation import check

    for name in {**dict.fromkeys(names), **options}:
        if ":" not in name:
            check(options_class("attacks", name), options.get(name, {}), f"attacks.{name}")


def check_model(name: str, option: str = "model.name") -> None:
    """Refuse a model's name that leads nowhere.

    Raises:
        UserError: no such folder, file or embedded model.
    """
    from expunge.models.model_name import check_model_name

    check_model_name(name, option)


def check_target(name: str, stage: str) -> None:
    """Refuse what is neither a run's directory nor a model.

    Raises:
        UserError: no such folder, file or embedded model.
    """
    from expunge.core.records import is_run

    if not is_run(Path(name)) and "://" not in name:
        check_model(name, f"{stage} model")


def check_data(spec: DataSpec, where: str) -> None:
    """Refuse a data file that does not exist.

    Raises:
        UserError: no such file.
    """
    from expunge.data.files import endings
    from expunge.data.load import load_data

    if spec.name.endswith(tuple(endings())) and not Path(spec.name).exists():
        load_data(spec, where)


def check_named_data(splits: Mapping[str, str]) -> None:
    """The same for `--data SPLIT=DATA`.

    Raises:
        UserError: no such file.
    """
    from expunge.data.base import spec_of

    for split, text in splits.items():
        check_data(spec_of(text, f"data.{split}"), f"data.{split}")
