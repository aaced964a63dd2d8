"""OpenUnlearning's names and files: what they mean here, and which files are refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import ks_2samp
from sklearn.metrics import roc_auc_score
from typer.testing import CliRunner

from expunge.cli.main import app
from expunge.core import plugins
from expunge.core.errors import UserError
from expunge.data.example import Example
from expunge.data.splits import Splits
from expunge.evaluate.aliases import check_role, for_role, named, named_set_metric, openunlearning
from expunge.evaluate.config import EvaluateConfig
from expunge.evaluate.reference import ReferenceFile, import_openunlearning, read_reference
from expunge.evaluate.score import FOLDER, SET_FOLDER, load_metrics, load_set_metrics
from expunge.evaluate.sets import sets_of
from expunge.models.base import LanguageModel
from expunge.workflows.evaluate import data_plan, evaluate_models

Logs = dict[str, Any]


def by_index(**fields: Any) -> Logs:
    """Three rows; each field gives their values."""
    return {str(row): {name: values[row] for name, values in fields.items()} for row in range(3)}


def logs() -> Logs:
    """A small evaluation: ratios 1/2, 1, 2; attack values 1, 2, 3 of forget and 2, 3, 4 of holdout rows."""
    forget, holdout = [1.0, 2.0, 3.0], [2.0, 3.0, 4.0]
    auc = float(roc_auc_score([0] * 3 + [1] * 3, forget + holdout))
    return {
        "forget_truth_ratio": {"agg_value": (0.5 + 1 + 0.5) / 3, "value_by_index": by_index(score=[0.5, 1.0, 2.0])},
        "forget_Q_A_Prob": {
            "agg_value": 0.2,
            "value_by_index": by_index(prob=[0.1, 0.2, 0.3], avg_loss=[2.3, 1.6, 1.2]),
        },
        "forget_Q_A_PERT_Prob": {
            "agg_value": 0.15,
            "value_by_index": by_index(prob=[[0.1, 0.2]] * 3, avg_loss=[[2.3, 1.6]] * 3),
        },
        "ra_Q_A_ROUGE": {
            "agg_value": 0.5,
            "value_by_index": by_index(rougeL_recall=[0.0, 0.5, 1.0], generation=["secret"] * 3),
        },
        "mia_min_k": {
            "forget": {"agg_value": 2.0, "value_by_index": by_index(score=forget)},
            "holdout": {"agg_value": 3.0, "value_by_index": by_index(score=holdout)},
            "auc": auc,
            "agg_value": auc,
        },
        "forget_quality": {"agg_value": 0.4},
        "model_utility": {"agg_value": 0.6},
    }


def written(folder: Path, found: Any) -> Path:
    path = folder / "TOFU_EVAL.json"
    path.write_text(json.dumps(found), encoding="utf-8")
    return path


def test_every_name_leads_to_a_metric() -> None:
    for one in openunlearning().values():
        assert one.metric in plugins.names(FOLDER)
        assert one.stored in plugins.names(FOLDER)
        assert one.field
    assert named_set_metric("rel_diff") in plugins.names(SET_FOLDER)
    assert named("forget_Q_A_Prob")[:2] == ("probability", "forget")
    assert named("ra_Q_A_ROUGE")[:2] == ("rouge_l_recall", "neighbour")
    assert named("wf_Q_A_Prob_normalised")[:2] == ("normalised_probability", "general")
    assert named("forget_truth_ratio") == named("forget_Truth_Ratio")
    assert named("extraction_strength").role is None
    assert named("no_such_name") == ("no_such_name", None, "", "")


def test_names_in_a_configuration() -> None:
    """One name for one role; the same metric twice is measured once, its options may stand under either name."""
    names = ("forget_Q_A_Prob", "retain_Q_A_Prob", "ra_Q_A_ROUGE", "perplexity")
    assert list(load_metrics(EvaluateConfig(metrics=names))) == ["probability", "rouge_l_recall", "perplexity"]
    assert for_role(names, "forget") == ("probability", "perplexity")
    assert for_role(names, "neighbour") == ("rouge_l_recall", "perplexity")
    assert for_role(names, "general") == ("perplexity",)
    config = EvaluateConfig(metrics=names, options={"ra_Q_A_ROUGE": {"stemmer": False}})
    assert load_metrics(config)["rouge_l_recall"].config.stemmer is False
    both = EvaluateConfig(options={"ra_Q_A_ROUGE": {"stemmer": False}, "rouge_l_recall": {"stemmer": True}})
    with pytest.raises(UserError, match=r"rouge_l_recall are given twice"):
        load_metrics(both)
    found = load_set_metrics(EvaluateConfig(set_metrics=("rel_diff", "privleak")), by_default=False)
    assert list(found) == ["relative_difference", "privleak"]
    with pytest.raises(UserError, match=r"sets\.retain\.metrics: 'forget_Q_A_Prob' is of forget rows"):
        check_role(["perplexity", "forget_Q_A_Prob"], "retain", "sets.retain.metrics")


def test_a_name_is_measured_on_the_rows_that_it_is_of(
    tiny: LanguageModel, examples: dict[str, tuple[Example, ...]]
) -> None:
    config = EvaluateConfig(metrics=("forget_Q_A_Prob", "retain_extraction_strength", "perplexity"))
    plan = data_plan({}, config)
    plan = type(plan)(sets_of(Splits(examples["forget"][:2], examples["retain"][:2]), config), {}, config)
    (found,) = evaluate_models([tiny.network], plan, tokenizer=tiny.tokenizer)
    assert {name: sorted(scores) for name, scores in found.record.scores.items()} == {
        "forget": ["perplexity", "probability"],
        "retain": ["extraction_strength", "perplexity"],
    }


def test_what_a_file_holds(tmp_path: Path) -> None:
    """Row values by role, in the order of their numbers; of several answers the mean; no text."""
    found = logs()
    rows = found["forget_Q_A_Prob"]["value_by_index"]
    found["forget_Q_A_Prob"]["value_by_index"] = {row: rows[row] for row in ("2", "0", "1")}
    read = import_openunlearning(written(tmp_path, found))
    assert read.rows == {"forget": 3, "neighbour": 3, "holdout": 3}
    assert read.values == {
        "forget": {
            "raw_truth_ratio": [0.5, 1.0, 2.0],
            "probability": [0.1, 0.2, 0.3],
            "perturbed_probability": pytest.approx([0.15] * 3),
            "mia_min_k": [1.0, 2.0, 3.0],
        },
        "neighbour": {"rouge_l_recall": [0.0, 0.5, 1.0]},
        "holdout": {"mia_min_k": [2.0, 3.0, 4.0]},
    }
    assert "secret" not in read.model_dump_json()


@pytest.mark.parametrize("stored", [(0.5 + 1 + 0.5) / 3, (0.5 + 0 + 0) / 3, (2 / 3 + 1 / 2 + 1 / 3) / 3])
def test_truth_ratios_fit_any_of_the_three_aggregates(tmp_path: Path, stored: float) -> None:
    """min(R, 1/R), max(0, 1 - R), 1 / (1 + R) of 1/2, 1, 2."""
    found = logs()
    found["forget_truth_ratio"]["agg_value"] = stored
    assert import_openunlearning(written(tmp_path, found)).values["forget"]["raw_truth_ratio"] == [0.5, 1.0, 2.0]


def test_a_row_without_a_number_is_none(tmp_path: Path) -> None:
    """It is still a row: the data set keeps its size, and nothing takes its place."""
    found = logs()
    found["exact_memorization"] = {"agg_value": 0.75, "value_by_index": by_index(score=[0.5, None, 1.0])}
    read = import_openunlearning(written(tmp_path, found))
    assert read.values["forget"]["exact_memorization"] == [0.5, None, 1.0]
    assert read.set_values["forget"]["exact_memorization"].numbers.tolist() == [0.5, 1.0]


def _wrong_mean(found: Logs) -> None:
    found["forget_Q_A_Prob"]["agg_value"] = 0.9


def _wrong_auc(found: Logs) -> None:
    found["mia_min_k"]["auc"] = 0.1


def _gap(found: Logs) -> None:
    del found["forget_Q_A_Prob"]["value_by_index"]["1"]


def _names(found: Logs) -> None:
    found["forget_Q_A_Prob"]["value_by_index"]["x"] = {"prob": 0.2}


def _text(found: Logs) -> None:
    found["forget_Q_A_Prob"]["value_by_index"]["1"]["prob"] = "high"


def _infinite(found: Logs) -> None:
    found["forget_Q_A_Prob"]["value_by_index"]["1"]["prob"] = float("nan")


def _field(found: Logs) -> None:
    found["forget_Q_A_Prob"]["value_by_index"]["1"] = {"loss": 1}


def _short(found: Logs) -> None:
    found["exact_memorization"] = {"value_by_index": {"0": {"score": 1.0}, "1": {"score": 1.0}}}


def _one_sided(found: Logs) -> None:
    del found["mia_min_k"]["holdout"]


def _summary(found: Logs) -> None:
    summary = {name: log.get("agg_value") for name, log in found.items()}
    found.clear()
    found.update(summary)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_wrong_mean, r"forget_Q_A_Prob: its aggregate is 0\.9, but its rows give 0\.2"),
        (_wrong_auc, r"mia_min_k\.auc: its aggregate is 0\.1, but its rows give 0\.77"),
        (_gap, "forget_Q_A_Prob: rows are not numbered 0 to 1"),
        (_names, "a row is not named by its number"),
        (_text, r"forget_Q_A_Prob: value_by_index\.1\.prob: not a number: 'high'"),
        (_infinite, r"not a number: nan"),
        (_field, r"forget_Q_A_Prob\.value_by_index\.1: no 'prob'"),
        (_short, "exact_memorization: 2 forget rows, other metrics have 3"),
        (_one_sided, "mia_min_k: no holdout rows"),
        (_summary, "no row values of a known metric"),
    ],
)
def test_damaged_files(tmp_path: Path, damage: Callable[[Logs], None], message: str) -> None:
    found = logs()
    damage(found)
    message = message.replace(r": value_by_index\.1\.prob", r"\.value_by_index\.1\.prob")
    with pytest.raises(UserError, match=message):
        import_openunlearning(written(tmp_path, found))


def test_files_of_another_kind(tmp_path: Path) -> None:
    torn = tmp_path / "torn.json"
    torn.write_text("{", encoding="utf-8")
    for path, message in (
        (tmp_path / "none.json", "no such file"),
        (torn, "not JSON"),
        (written(tmp_path, [1]), "an object of metrics is expected"),
    ):
        with pytest.raises(UserError, match=message):
            import_openunlearning(path)
    with pytest.raises(UserError, match="no such file"):
        read_reference(tmp_path / "none.json")
    with pytest.raises(UserError, match=r"not a reference file.*import-ou"):
        read_reference(written(tmp_path, logs()))
    other = import_openunlearning(written(tmp_path, logs())).model_dump(mode="json") | {"schema_version": 2}
    with pytest.raises(UserError, match=r"not a reference file: schema_version"):
        read_reference(written(tmp_path, other))


def test_the_command_and_what_is_compared_with_its_file(
    tmp_path: Path, tiny: LanguageModel, examples: dict[str, tuple[Example, ...]]
) -> None:
    """Imported ratios and attack values are the reference of an evaluation of three forget and three holdout rows."""
    file = written(tmp_path, logs())
    runner = CliRunner()
    done = runner.invoke(app, ["import-ou", str(file)])
    assert done.exit_code == 0, done.output
    assert "raw_truth_ratio" in done.output
    target = tmp_path / "TOFU_EVAL.reference.json"
    assert ReferenceFile.model_validate_json(target.read_bytes()).source == "TOFU_EVAL.json"
    again = runner.invoke(app, ["import-ou", str(file)])
    assert isinstance(again.exception, UserError)
    assert "nothing is overwritten" in str(again.exception)
    elsewhere = runner.invoke(app, ["import-ou", str(file), "--out", str(tmp_path / "r.json"), "--json"])
    assert {row["metric"] for row in json.loads(elsewhere.output)["values"]} >= {"mia_min_k", "probability"}

    forget, holdout = examples["forget"][:3], examples["neighbour"][:3]
    config = EvaluateConfig(metrics=("probability",), set_metrics=("privleak", "forget_quality", "krd"))
    plan = data_plan({}, config)
    kind = type(plan)
    sets = sets_of(Splits(forget, (), holdout=holdout), config)
    (found,) = evaluate_models([tiny.network], kind(sets, {}, config), reference=str(target), tokenizer=tiny.tokenizer)
    scores = found.record.scores["forget"]
    assert found.record.retrained == str(target)
    mine = [found.measured.set_values[role]["mia_min_k"].numbers for role in ("forget", "holdout")]
    auc = roc_auc_score([0] * 3 + [1] * 3, np.concatenate(mine))
    assert scores["privleak"].value == pytest.approx(100 * (7 / 9 - auc) / (1 - 7 / 9))
    assert str(scores["krd"].reason) == "no original model: rows with probability"
    ratios = found.measured.set_values["forget"]["raw_truth_ratio"].numbers
    assert scores["forget_quality"].value == pytest.approx(ks_2samp(ratios, [0.5, 1.0, 2.0]).pvalue)
    for wrong, message in (
        (Splits(forget[:2], (), holdout=holdout), "of another data set: 3 forget rows, 2 are measured"),
        (Splits(forget, (), holdout=holdout[:1]), "of another data set: 3 holdout rows, 1 are measured"),
    ):
        with pytest.raises(UserError, match=message):
            evaluate_models(
                [tiny.network],
                kind(sets_of(wrong, config), {}, config),
                reference=str(target),
                tokenizer=tiny.tokenizer,
            )
