"""A pool of models for meta-evaluation, as a TOML file describes it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pydantic import Field

from expunge.core.errors import UserError
from expunge.core.permission import check_remote_code, tell
from expunge.core.records import Frozen
from expunge.core.toml import read_toml
from expunge.core.validation import check
from expunge.data.base import DataSpec
from expunge.evaluate.config import EvaluateConfig
from expunge.evaluate.metric_trust import TrustConfig
from expunge.evaluate.score import load_metrics, load_set_metrics
from expunge.evaluate.whitebox.engine import load_whitebox
from expunge.models.config import ModelConfig
from expunge.models.model_name import check_model_name
from expunge.models.quantize import Quantization

_RENAMED = {"depth": "whitebox", "depth_options": "whitebox_options"}
"""Keys of version 0.1 and their names now."""


class Member(Frozen):
    """One model of the pool."""

    path: str = Field(description="Embedded name, local folder, .gguf file or hub id")
    knows: bool | None = Field(
        None, description="Whether it was taught the forget rows; Default: it was unlearned, and is attacked"
    )
    utility: float | None = Field(
        None, ge=0, description="Share of the original model's utility; Default: by the answers' mean probability"
    )


class PoolData(Frozen):
    """Rows of a pool without a suite."""

    forget: DataSpec = Field(description="What was taught or not")
    retain: DataSpec | None = Field(None, description="What every model should know")
    neighbour: DataSpec | None = Field(None, description="Rows near the forgotten ones")
    general: DataSpec | None = Field(None, description="Any other knowledge")
    holdout: DataSpec | None = Field(None, description="Rows like the forget rows on which no model was trained")


class RelearnConfig(Frozen):
    """Training on the forget rows again."""

    lr: float = Field(2e-5, gt=0, description="Learning rate")
    epochs: int = Field(1, ge=1, description="Passes over the forget rows")
    batch_size: int = Field(8, ge=1, description="Rows of a step")


class Pool(Frozen):
    """A pool file."""

    seed: int = Field(0, ge=0, lt=2**32, description="Of samples, training and intervals")
    suite: str | None = Field(None, description="Name or file of a suite, e.g. tofu:forget01; or else a table `data`")
    folder: str = Field("", description="Local folder that the suite reads instead of the hub")
    data: PoolData | None = None
    model: dict[str, Any] = Field(default_factory=dict, description='Keys of `[model]`, e.g. template = "plain"')
    evaluate: EvaluateConfig = Field(default_factory=EvaluateConfig, description="What is measured, without a suite")
    whitebox: tuple[str, ...] = Field((), description="White-box measures; they need original and retrained")
    whitebox_options: dict[str, dict[str, Any]] = Field(default_factory=dict, description="Options of these by name")
    original: str | None = Field(None, description="The model that unlearning starts from: full utility, least depth")
    retrained: str | None = Field(None, description="A model that never saw the forget rows: reference of relearning")
    relearn: RelearnConfig = Field(default_factory=RelearnConfig)
    quantize: Quantization = Field(default_factory=Quantization)
    trust: TrustConfig = Field(default_factory=TrustConfig)
    models: tuple[Member, ...] = Field(min_length=1)


def load_pool(file: Path) -> Pool:
    """Read and check a pool file.

    Raises:
        UserError: no such file, unknown key, wrong type, no such model, or something that does not go together.
    """
    tables = read_toml(file)
    for old, new in _RENAMED.items():
        if old in tables:
            tell(f"{file}: '{old}' is now called '{new}'; the old key will be removed in the next release")
            tables.setdefault(new, tables.pop(old))
    pool = check(Pool, tables, "")
    if (pool.suite is None) == (pool.data is None):
        raise UserError(f"{file}: name either a suite or a table [data]")
    if pool.whitebox and not (pool.original and pool.retrained):
        raise UserError("whitebox: needs 'original' and 'retrained' too")
    paths = [member.path for member in pool.models]
    if repeated := next((path for path in paths if paths.count(path) > 1), None):
        raise UserError(f"models: '{repeated}' is there more than once")
    for place, member in enumerate(pool.models):
        check_model_name(member.path, f"models.{place}.path")
    for name in ("original", "retrained"):
        if getattr(pool, name) is not None:
            check_model_name(getattr(pool, name), name)
    if check(ModelConfig, {**pool.model, "name": "any"}, "model").trust_remote_code:
        check_remote_code()
    load_metrics(pool.evaluate)
    load_set_metrics(pool.evaluate, by_default=False)
    load_whitebox(pool.whitebox, pool.whitebox_options)
    return pool
