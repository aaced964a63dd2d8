"""Suites: TOML files that name sets of rows, their roles and their metrics."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from expunge.core.catalog import SUITES
from expunge.core.errors import UserError, near
from expunge.core.records import Frozen
from expunge.core.toml import Tables, merge, read_toml
from expunge.core.validation import check
from expunge.data.base import DataSpec
from expunge.data.load import load_data
from expunge.evaluate.aliases import check_role
from expunge.evaluate.config import EvaluateConfig, Role
from expunge.evaluate.score import load_metrics, load_set_metrics
from expunge.evaluate.sets import EvalSet


class SetConfig(Frozen):
    """One set of a suite. Keys default to the suite's `evaluate` table."""

    data: DataSpec = Field(description="Its rows")
    role: Role = Field(description="What they are for")
    metrics: tuple[str, ...] = Field((), description="Row metrics. Default: those of the suite")
    max_new_tokens: int | None = Field(None, ge=1, le=100_000, description="Longest generated answer, in tokens")
    stop: tuple[Annotated[str, Field(min_length=1)], ...] | None = Field(
        None, description="Strings at which a generated text is cut"
    )
    reference_tokens: int | None = Field(None, ge=1, description="Text metrics compare with this many stored tokens")
    samples: int | None = Field(None, ge=0, le=10_000, description="Answers sampled for each question")
    max_rows: int | None = Field(None, ge=1, description="A larger set is measured on a seeded sample")
    document_prompt: float | None = Field(None, ge=0, lt=1, description="Share of a document that is its prompt")
    by_topic: bool = Field(False, description="Score each topic of its rows (subject, kind of question) by itself too")
    compared: bool = Field(True, description="Whether metrics over many rows, e.g. of membership, read this set")


class Suite(Frozen):
    """A suite file."""

    summary: str = Field("", description="One line")
    paper: str = Field("", description="Where it comes from")
    model: dict[str, Any] = Field(default_factory=dict, description='Keys of `[model]`, e.g. template = "plain"')
    evaluate: EvaluateConfig = Field(default_factory=EvaluateConfig, description="How all sets are measured")
    sets: dict[str, SetConfig] = Field(min_length=1)

    def rows(self) -> dict[str, EvalSet]:
        """Every set with its rows.

        Raises:
            UserError: as `load_data`.
        """
        loaded = {name: load_data(one.data, f"sets.{name}.data") for name, one in self.sets.items()}
        return {
            name: EvalSet(
                loaded[name].examples,
                one.role,
                self._config(one),
                one.metrics,
                one.compared,
                one.by_topic,
                loaded[name].understood,
            )
            for name, one in self.sets.items()
        }

    def check(self) -> None:
        """Refuse unknown metrics and options before anything is loaded.

        Raises:
            UserError: as `load_metrics`.
        """
        load_set_metrics(self.evaluate, by_default=False)
        load_metrics(self.evaluate)
        for name, one in self.sets.items():
            check_role(one.metrics, one.role, f"sets.{name}.metrics")
            load_metrics(self.evaluate.model_copy(update={"metrics": one.metrics}))

    def _config(self, one: SetConfig) -> EvaluateConfig:
        own = one.model_dump(include=set(EvaluateConfig.model_fields) - {"metrics"}, exclude_none=True)
        return self.evaluate.model_copy(update=own)


def suite_names() -> list[str]:
    """Names of the shipped suites."""
    return sorted(path.stem for path in SUITES.glob("*.toml"))


def load_suite(name: str, folder: str = "", tables: Tables | None = None) -> Suite:
    """A suite by name or path, `NAME:VARIANT` for one of its variants.

    Args:
        name: e.g. `tofu:forget05`, or `my_suite.toml`.
        folder: local folder that the sets' data sources read instead of the hub. Default: as the suite says.
        tables: tables that win over the file's.

    Raises:
        UserError: no such suite or variant, an unknown key, metric or option.
    """
    path, variant = _find(name)
    read = read_toml(path)
    variants = read.pop("variants", {})
    if variant and variant not in variants:
        raise UserError(f"--suite {name}: no variant '{variant}'{near(variant, variants)}")
    merged = merge(merge(read, variants.get(variant, {})), tables or {})
    if folder:
        _point_at(merged, folder)
    suite = check(Suite, merged, "")
    suite.check()
    return suite


def _find(name: str) -> tuple[Path, str]:
    """The file of a suite, and the name of the variant."""
    stem, _, variant = (name, "", "") if Path(name).is_file() else name.partition(":")
    if stem.endswith(".toml"):
        return Path(stem), variant
    if stem not in suite_names():
        raise UserError(f"--suite: no '{stem}'{near(stem, suite_names())}")
    return SUITES / f"{stem}.toml", variant


def _point_at(tables: Tables, folder: str) -> None:
    """Let every set's data source read a local folder."""
    if not Path(folder).is_dir():
        raise UserError(f"--folder {folder}: no such folder")
    for one in tables.get("sets", {}).values():
        if isinstance(one, dict) and isinstance(one.get("data"), dict):
            one["data"] = merge(one["data"], {"options": {"folder": folder}})
