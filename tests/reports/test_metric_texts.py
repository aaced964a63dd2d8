"""Reports take what they say of metrics and attacks from the classes, and have words for names that no class has."""

from __future__ import annotations

import pytest

from expunge.core import plugins
from expunge.evaluate.base import Metric
from expunge.reports.metric_texts import headline_metrics, leak_marks, metric_meaning, metric_title, utility_metrics
from expunge.reports.robustness import threats


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("rouge_l_recall", "ROUGE-L recall"),
        ("token_entropy", "token entropy"),
        ("1 - rouge_l_recall", "1 - ROUGE-L recall"),
        ("my_package.metrics:MyMetric", "MyMetric"),
        ("metric_of_an_old_record", "metric of an old record"),
    ],
)
def test_every_name_has_a_readable_title(name: str, title: str) -> None:
    assert metric_title(name) == title


def test_what_is_read_is_what_the_class_says() -> None:
    for name in plugins.names("evaluate/metrics"):
        kind = plugins.find("evaluate/metrics", name, Metric)  # type: ignore[type-abstract]
        assert (name in headline_metrics()) == (kind.headline is not None)
        assert metric_meaning(name) == kind.meaning or not kind.meaning
        assert leak_marks().get(name, "") == kind.leak_mark


def test_headline_metrics_keep_their_places() -> None:
    """The verdict takes the first utility metric that both stages have, so that their order decides."""
    assert headline_metrics()[:2] == ("keyword_recall", "sample_leak")
    assert utility_metrics() == ("keyword_recall", "rouge_l_recall", "probability")


def test_a_metric_without_its_own_sentence_is_explained_by_its_file() -> None:
    assert metric_meaning("max_logit") == "The largest logit at each token of the stored answer."
    assert metric_meaning("my_package.metrics:MyMetric") == ""


def test_threats_are_those_that_attacks_test() -> None:
    """Prompts come before what needs the weights."""
    assert {"quantization", "relearning on a few rows", "prefilled answers"} < set(threats())
    assert threats().index("prefilled answers") < threats().index("membership inference") < len(threats()) - 1
