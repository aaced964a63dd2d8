"""Options that no run can mean are refused in one line, wherever they stand."""

from __future__ import annotations

from typing import Any

import pytest

from expunge.attacks.engine import load_attacks
from expunge.core.errors import UserError
from expunge.core.validation import check
from expunge.evaluate.config import EvaluateConfig
from expunge.train.config import GuardConfig, SqueezeConfig, TrainConfig
from expunge.train.trainer import check_train


@pytest.mark.parametrize(
    ("kind", "values", "message"),
    [
        (EvaluateConfig, {"stop": [""]}, "x.stop.0: an empty text"),
        (EvaluateConfig, {"stop": ["so", ""]}, "x.stop.1: an empty text"),
        (EvaluateConfig, {"temperature": float("inf")}, "x.temperature: expected a finite number, got inf"),
        (EvaluateConfig, {"temperature": 0}, "x.temperature: input should be greater than 0"),
        (EvaluateConfig, {"temperature": -1.0}, "x.temperature: input should be greater than 0"),
        (EvaluateConfig, {"temperature": 1e300}, r"x.temperature: 1e\+300 is too large a number"),
        (EvaluateConfig, {"samples": 10**30}, r"x.samples: 1e\+30 is too large a number"),
        (EvaluateConfig, {"samples": 10**9}, "x.samples: input should be less than or equal to 10000"),
        (EvaluateConfig, {"max_new_tokens": 10**9}, "x.max_new_tokens: input should be less than"),
        (EvaluateConfig, {"options": {"": {}}}, "x.options: a name is empty"),
        (GuardConfig, {"stop_above": {"": 1.0}}, "x.stop_above: a name is empty"),
        (GuardConfig, {"stop_above": {"loss": float("nan")}}, "x.stop_above.loss: expected a finite number, got nan"),
        (TrainConfig, {"lr": 1e300}, r"x.lr: 1e\+300 is too large a number"),
        (TrainConfig, {"retain_ratio": 10**9}, "x.retain_ratio: input should be less than"),
        (TrainConfig, {"report_to": [""]}, "x.report_to.0: an empty text"),
        (SqueezeConfig, {"beams": 10**9}, "x.beams: input should be less than"),
    ],
)
def test_values_that_mean_nothing(kind: type[Any], values: dict[str, Any], message: str) -> None:
    """Empty, not finite, or larger than any machine could serve."""
    with pytest.raises(UserError, match=message) as caught:
        check(kind, values, "x")
    assert "\n" not in str(caught.value)


def test_blank_texts_and_large_seeds_are_taken() -> None:
    """A line break is a stop string; the largest seed of the generators is a seed."""
    assert check(EvaluateConfig, {"stop": ["\n", " "]}, "x").stop == ("\n", " ")
    assert check(EvaluateConfig, {"max_rows": 2**32 - 1}, "x").max_rows == 2**32 - 1


def test_an_empty_stop_string_is_refused_without_the_command_line() -> None:
    """From Python the class itself refuses it: every answer would be cut to nothing."""
    with pytest.raises(ValueError, match="stop"):
        EvaluateConfig(stop=("",))


@pytest.mark.parametrize("options", [{"gcg": {"length": True}}, {"probe": {"folds": "x"}}, {"noise": {"size": 1}}])
def test_options_of_attacks_that_are_not_carried_out_are_checked(options: dict[str, Any]) -> None:
    """They would be taken in silence, and be wrong in the next `expunge attack` on the run."""
    with pytest.raises(UserError, match=r"attacks\.(gcg|probe|noise)\."):
        load_attacks([], options)


def test_a_warm_up_without_an_end_is_refused() -> None:
    """The learning rate would stay near 0, and nothing would be forgotten."""
    check_train(TrainConfig(epochs=2, warmup_epochs=2.0))
    with pytest.raises(UserError, match="3 is longer than the training"):
        check_train(TrainConfig(epochs=2, warmup_epochs=3.0))
