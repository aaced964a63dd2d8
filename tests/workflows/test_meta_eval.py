"""A meta-evaluation of tiny models: taught, never taught, and two that stand for unlearned ones, one of them ruined."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tomli_w
import torch

from expunge.core.errors import UserError
from expunge.core.metric_trust import MetaRecord
from expunge.core.permission import granted
from expunge.data.example import Example
from expunge.evaluate.pool import load_pool
from expunge.models.base import LanguageModel
from expunge.models.config import ModelConfig
from expunge.models.load import load_model
from expunge.models.save import save_model
from expunge.workflows.meta_eval import RECORD, meta_evaluate, write_meta

METRICS = ["probability", "extraction_strength", "repetition"]


def noisy(folder: Path, out: Path, seed: int) -> str:
    """The same model with a little noise on its weights: another one of its kind."""
    model = load_model(ModelConfig(name=str(folder)))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for weight in model.network.parameters():
            weight.add_(0.02 * weight.std() * torch.randn(weight.shape, generator=generator))
    save_model(model, out)
    return str(out)


def mixed(original: LanguageModel, other: LanguageModel, out: Path) -> str:
    """Weights of another model, less a twentieth of the way."""
    with torch.no_grad():
        for weight, theirs in zip(original.network.parameters(), other.network.parameters(), strict=True):
            weight.lerp_(theirs, 0.95)
    save_model(original, out)
    return str(out)


@pytest.fixture(scope="module")
def pool(
    tiny_folder: Path,
    retrained_folder: Path,
    fact_files: dict[str, Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> dict[str, Any]:
    """A pool file's tables."""
    place = tmp_path_factory.mktemp("pool")
    members: list[dict[str, Any]] = [{"path": str(tiny_folder), "knows": True}]
    members += [{"path": noisy(tiny_folder, place / f"knows-{seed}", seed), "knows": True} for seed in range(3)]
    members.append({"path": str(retrained_folder), "knows": False})
    members += [{"path": noisy(retrained_folder, place / f"not-{seed}", seed), "knows": False} for seed in range(3)]
    both = load_model(ModelConfig(name=str(tiny_folder))), load_model(ModelConfig(name=str(retrained_folder)))
    members.append({"path": mixed(*both, place / "unlearned")})
    members.append({"path": noisy(retrained_folder, place / "ruined", 9), "utility": 0.5})
    return {
        "original": str(tiny_folder),
        "retrained": str(retrained_folder),
        "whitebox": ["uds"],
        "data": {"forget": str(fact_files["forget"]), "retain": str(fact_files["retain"])},
        "evaluate": {"metrics": METRICS, "set_metrics": [], "max_new_tokens": 8, "samples": 0},
        "relearn": {"lr": 1e-3},
        "quantize": {"levels": "int4"},
        "models": members,
    }


def written(tables: dict[str, Any], folder: Path) -> Path:
    file = folder / "pool.toml"
    file.write_text(tomli_w.dumps(tables), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def record(pool: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> MetaRecord:
    file = written(pool, tmp_path_factory.mktemp("record"))
    return meta_evaluate(load_pool(file), str(file))


def test_metrics_that_see_the_knowledge_are_faithful(record: MetaRecord) -> None:
    found = {one.metric: one for one in record.metrics}
    assert set(found) == {*METRICS, "uds"}
    for name in ("probability", "uds"):
        assert found[name].faithfulness.value == 1.0
        assert found[name].faithfulness.n == 8
        assert found[name].robustness.value is not None
        assert found[name].robustness.n == 1
    assert record.metrics[0].metric != "repetition"
    assert found["repetition"].verdict == "not shown faithful"


def test_depth_is_turned_so_that_higher_means_more_knowledge(record: MetaRecord) -> None:
    """The retrained model has a depth of 1, no knowledge; the original one 0."""
    by_path = {model.path: model for model in record.models}
    assert by_path[record.config["original"]].before["uds"].value == pytest.approx(0, abs=1e-2)
    assert by_path[record.config["retrained"]].before["uds"].value == pytest.approx(1, abs=1e-2)
    (uds,) = (one for one in record.metrics if one.metric == "uds")
    assert uds.threshold is not None
    assert 0 < uds.threshold < 1


def test_only_unlearned_models_of_enough_utility_are_attacked(record: MetaRecord) -> None:
    *labelled, useful, ruined = record.models
    assert all(model.kept is None and not model.quantized and not model.relearned for model in labelled)
    assert (useful.kept, ruined.kept) == (True, False)
    assert useful.utility is not None
    assert useful.utility > 0.8
    assert set(useful.quantized) == set(useful.relearned) == {*METRICS, "uds"}
    assert useful.relearned["probability"].value > useful.before["probability"].value  # type: ignore[operator]
    assert not ruined.quantized


def test_relearning_is_held_against_the_retrained_model(record: MetaRecord) -> None:
    """R of the only model that is looked at, from the record's own numbers."""
    assert record.retrained is not None
    useful = record.models[-2]
    values = [
        scores["probability"].value or 0.0
        for model in (useful, record.retrained)
        for scores in (model.before, model.relearned)
    ]
    (found,) = (one for one in record.metrics if one.metric == "probability")
    assert found.relearn.value == pytest.approx(min(1.0, (values[3] - values[2]) / (values[1] - values[0])))
    before, after = (scores["probability"].value or 0.0 for scores in (useful.before, useful.quantized))
    assert found.quantize.value == pytest.approx(min(1.0, before / after))


def test_the_record_reads_back_and_tells(record: MetaRecord, tmp_path: Path) -> None:
    path = write_meta(record, tmp_path / "out")
    assert path == tmp_path / "out" / RECORD
    assert MetaRecord.model_validate_json(path.read_bytes()) == record
    assert record.finding.sentence.startswith(("Deserve trust on this pool: ", "No metric deserves trust"))
    for table in record.finding.tables:
        assert [row[0] for row in table.rows] == [one.metric for one in record.metrics if one.threshold is not None]
    assert "4 models know the forget rows, 4 do not, 2 were unlearned; 1 of these" in record.finding.notes[0]


def test_a_pool_without_unlearned_models_still_tells_who_is_faithful(pool: dict[str, Any], tmp_path: Path) -> None:
    less = {key: value for key, value in pool.items() if key not in ("original", "retrained", "whitebox", "models")}
    less["models"] = [pool["models"][0], pool["models"][4]]
    less["evaluate"] = {**pool["evaluate"], "metrics": ["probability"]}
    found = meta_evaluate(load_pool(written(less, tmp_path)))
    (probability,) = found.metrics
    assert probability.faithfulness.value == 1.0
    assert probability.robustness.reason == "no unlearned model in the pool"
    assert found.retrained is None
    assert found.models[0].utility is None


def test_a_suite_names_the_rows(pool: dict[str, Any], fact_files: dict[str, Path], tmp_path: Path) -> None:
    """Two sets to forget: a metric goes by the name of its set."""
    suite = tmp_path / "suite.toml"
    one = {"data": str(fact_files["forget"]), "role": "forget", "metrics": ["probability"]}
    two = {"data": {"name": str(fact_files["forget"]), "limit": 2}, "role": "forget", "metrics": ["probability"]}
    suite.write_text(tomli_w.dumps({"sets": {"all": one, "some": two}}), encoding="utf-8")
    tables = {"suite": str(suite), "models": [pool["models"][0], pool["models"][4]]}
    found = meta_evaluate(load_pool(written(tables, tmp_path)))
    assert {metric.metric for metric in found.metrics} == {"all/probability", "some/probability"}
    assert found.models[0].before["some/probability"].n == 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"suite": "own"}, "name either a suite or a table"),
        ({"data": None}, "name either a suite or a table"),
        ({"retrained": None}, "whitebox: needs 'original' and 'retrained' too"),
        ({"whitebox": ["udz"]}, "no 'udz'; did you mean uds"),
        ({"evaluate": {"metrics": ["probabilty"]}}, "did you mean probability"),
        ({"models": []}, "models: "),
        ({"models": [{"path": "nowhere/at/all"}]}, r"models\.0\.path: nowhere/at/all: no such file or folder"),
        ({"models": [{"path": "smollm2-135m", "know": True}]}, r"unknown key 'models\.0\.know'; did you mean knows"),
        ({"models": [{"path": "smollm2-135m"}] * 2}, "'smollm2-135m' is there more than once"),
        ({"original": "smollm"}, "original: no model 'smollm'"),
        ({"trust": {"min_utility": -1}}, r"trust\.min_utility: "),
        ({"quantize": {"levels": "int3"}}, r"quantize\.levels: "),
        ({"model": {"templat": "plain"}}, r"unknown key 'model\.templat'; did you mean template"),
        ({"whitebox_options": {"uds": {"thresold": 1}}}, r"unknown key 'whitebox\.options\.uds\.thresold'"),
    ],
)
def test_mistakes_are_told_before_any_model_is_loaded(
    pool: dict[str, Any], tmp_path: Path, change: dict[str, Any], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("expunge.workflows.meta_eval.load_model", lambda *_: pytest.fail("loaded"))
    tables = {key: value for key, value in {**pool, **change}.items() if value is not None}
    with pytest.raises(UserError, match=message):
        load_pool(written(tables, tmp_path))


def test_no_text_of_the_rows_is_in_the_record(record: MetaRecord, examples: dict[str, tuple[Example, ...]]) -> None:
    told = record.model_dump_json()
    for row in examples["forget"]:
        assert json.dumps(row.question)[1:-1] not in told
        assert json.dumps(row.answer)[1:-1] not in told


def test_the_example_is_a_pool_file() -> None:
    """Its models are the user's to make: the first of them is what is missing."""
    with pytest.raises(UserError, match=r"models\.0\.path: taught/full/model: no such file or folder"):
        load_pool(Path(__file__).parents[2] / "examples" / "pool.toml")


def test_the_old_names_of_the_whitebox_keys_still_load(pool: dict[str, Any], tmp_path: Path) -> None:
    old = {("depth" if key == "whitebox" else key): value for key, value in pool.items()}
    lines: list[str] = []
    with granted(tell=lines.append):
        found = load_pool(written({**old, "depth_options": {"uds": {"threshold": 0.1}}}, tmp_path))
    assert (found.whitebox, found.whitebox_options) == (("uds",), {"uds": {"threshold": 0.1}})
    assert [line.split(": ", 1)[1].split(";")[0] for line in lines] == [
        "'depth' is now called 'whitebox'",
        "'depth_options' is now called 'whitebox_options'",
    ]
