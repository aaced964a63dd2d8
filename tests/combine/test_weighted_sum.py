"""The weighted sum, against autograd's own."""

import pytest
import torch
from torch import Tensor

from expunge.combine.base import Step, StepLosses
from expunge.combine.weighted_sum import WeightedSum
from expunge.core.errors import UserError


def test_gradient_is_that_of_the_summed_loss() -> None:
    """Forget x^2, retain 3x at x = 2, weights 1/2 and 4: 1/2 * 2x + 4 * 3 = 2 + 12 = 14 more than was there."""
    x = torch.nn.Parameter(torch.tensor(2.0, dtype=torch.float64))
    x.grad = torch.tensor(100.0, dtype=torch.float64)
    rule = WeightedSum(WeightedSum.Config(forget_weight=0.5, retain_weight=4.0))
    losses = rule.accumulate(Step(lambda: x**2, lambda: 3 * x, lambda loss: loss.backward(), [x]))
    assert x.grad.item() == 114.0
    assert losses == StepLosses(forget=4.0, retain=6.0)


def test_conflict_is_seen_without_changing_the_gradient() -> None:
    """Forget x0^2 - x1, retain 3 x0 + 4 x1 at (2, 0): gradients (4, -1) and (3, 4), cosine 8 / (sqrt 17 * 5)."""
    x = torch.nn.Parameter(torch.tensor([2.0, 0.0], dtype=torch.float64))
    y = torch.nn.Parameter(torch.tensor(1.0, dtype=torch.float64))
    x.grad = torch.tensor([100.0, 50.0], dtype=torch.float64)
    rule = WeightedSum(WeightedSum.Config(forget_weight=0.5, watch_conflict=True))
    step = Step(lambda: x[0] ** 2 - x[1] + y, lambda: 3 * x[0] + 4 * x[1] - y, lambda loss: loss.backward(), [x, y])
    rule.accumulate(step)
    assert x.grad.tolist() == [105.0, 53.5]
    assert rule.logs["gradient_cosine"] == pytest.approx((8 / (17**0.5 * 5) - 1) / 2), "the second tensor: 1 and -1"
    assert rule.logs["gradient_conflict"] == 0.5


@pytest.mark.parametrize("absent", ["forget", "retain"])
def test_a_stream_of_weight_zero_is_never_computed(absent: str) -> None:
    x = torch.nn.Parameter(torch.tensor(2.0))

    def refuse() -> Tensor:
        raise AssertionError("computed")

    streams = {"forget": lambda: x**2, "retain": lambda: 3 * x} | {absent: refuse}
    rule = WeightedSum(WeightedSum.Config.model_validate({f"{absent}_weight": 0.0}))
    losses = rule.accumulate(Step(streams["forget"], streams["retain"], lambda loss: loss.backward(), [x]))
    assert getattr(losses, absent) is None
    assert x.grad is not None
    assert x.grad.item() == (3.0 if absent == "forget" else 4.0)


def test_two_weights_of_zero_are_refused() -> None:
    """Nothing would be trained, and the report would say that nothing was forgotten."""
    with pytest.raises(UserError, match="both 0"):
        WeightedSum(WeightedSum.Config(forget_weight=0.0, retain_weight=0.0))
