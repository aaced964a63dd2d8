"""Example files: every one parses, its method can be built, and data that need no network are read."""

from __future__ import annotations

from pathlib import Path

import pytest

from expunge.config import Run, load_run, load_tables, read_tables
from expunge.core.errors import UserError
from expunge.core.schema import SLOTS
from expunge.core.toml import Tables, read_toml
from expunge.data.base import DataSpec
from expunge.data.load import load_splits
from expunge.evaluate.pool import load_pool
from expunge.workflows.continual import load_plan
from expunge.workflows.sweep import load_sweep
from expunge.workflows.teach import load_teach

EXAMPLES = Path(__file__).parents[1] / "examples"
FILES = sorted(EXAMPLES.glob("*.toml"))
FROM_THE_HUB = {"muse", "wmdp", "Salesforce/wikitext"}


def _runs(file: Path) -> list[Run]:
    """Every run that a file stands for."""
    tables = read_tables(file)
    requests = tables["data"].pop("requests", None)
    if requests is None:
        return [load_run(file)]
    steps: list[Tables] = [{**tables, "data": {**tables["data"], "forget": one}} for one in requests]
    return [load_tables(step) for step in steps]


def _names(spec: DataSpec) -> set[str]:
    return {spec.name}.union(*map(_names, spec.also))


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_every_example_is_a_run_that_can_start(file: Path) -> None:
    tables = read_toml(file)
    if "models" in tables:
        with pytest.raises(UserError, match=r"models\.0\.path: taught/full/model: no such file"):
            load_pool(file)  # all else is right: paths are looked up last
    elif "teach" in tables["data"]:
        assert load_teach(file).data.teach
    else:
        for run in _runs(file):
            for slot in SLOTS:
                assert run.build(slot)
            if not (_names(run.data.forget) | _names(run.data.retain)) & FROM_THE_HUB:
                splits = load_splits(run.data)
                assert splits.forget
                assert splits.retain


def test_scenarios_have_the_settings_of_their_papers() -> None:
    """ME+GD weighs 0.5 for real people, 1.0 in a sequence (arXiv:2410.08109); neighbours are trained on or measured."""
    people = load_run(EXAMPLES / "real_people.toml")
    assert (people.recipe, people.combine.options["forget_weight"]) == ("me_gd", 0.5)
    splits = load_splits(people.data)
    subjects = [{row.subject for row in some} for some in (splits.forget, splits.retain, splits.neighbour)]
    assert not subjects[0] & subjects[1] | subjects[1] & subjects[2] | subjects[0] & subjects[2]
    plan = load_plan(EXAMPLES / "continual_me.toml", Path("sequence"))
    assert [len({row.subject for row in request}) for request in plan.requests] == [1, 1, 1]
    assert {run.combine.options["forget_weight"] for run in plan.runs} == {1.0}
    kuda = load_run(EXAMPLES / "kuda_two_stage.toml")
    assert kuda.localize.options["top"] == load_sweep("null_space_budget").run["localize"]["top"]
    assert kuda.data.forget.split == "dev_forget"
