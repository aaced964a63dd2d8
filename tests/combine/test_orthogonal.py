"""FALCON's rule, worked by hand in float64, and through the trainer."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from expunge.combine.base import Step, StepLosses
from expunge.combine.orthogonal import Orthogonal
from expunge.core.errors import UserError
from expunge.core.validation import check
from expunge.data.example import Example
from expunge.forget.gradient_ascent import GradientAscent
from expunge.models.base import LanguageModel
from expunge.models.config import ModelConfig
from expunge.models.load import load_model
from expunge.retain.nll import NLL
from expunge.train.config import GuardConfig, TrainConfig
from expunge.train.job import Method, TrainingJob
from expunge.train.unlearn import prepare, unlearn

Vectors = list[list[float] | None]


class Linear:
    """Parameters at zero, with losses whose gradients are given vectors; None: the loss does not see the parameter."""

    def __init__(self, sizes: list[int], **options: Any) -> None:
        self.parameters = [torch.nn.Parameter(torch.zeros(size, dtype=torch.float64)) for size in sizes]
        self.rule = Orthogonal(Orthogonal.Config.model_validate(options))

    def step(self, forget: Vectors, retain: Vectors, scale: float = 1.0, is_last: bool = True) -> StepLosses:
        return self.rule.accumulate(
            Step(
                forget=lambda: self._loss(forget),
                retain=lambda: self._loss(retain),
                backward=lambda loss: (scale * loss).backward(),  # type: ignore[no-untyped-call]
                parameters=self.parameters,
                scale=scale,
                is_last=is_last,
            )
        )

    def gradients(self) -> list[list[float] | None]:
        return [None if one.grad is None else one.grad.tolist() for one in self.parameters]

    def _loss(self, vectors: Vectors) -> Tensor:
        pairs = [(one, row) for one, row in zip(self.parameters, vectors, strict=True) if row is not None]
        return torch.stack([one @ torch.tensor(row, dtype=torch.float64) for one, row in pairs]).sum()


@pytest.mark.parametrize(
    ("options", "forget", "retain", "expected"),
    [
        # F' = (0, 2): 0.8 F' + 1.2 R
        ({}, [-1, 2], [1, 0], [1.2, 1.6]),
        # agreement: 0.1 F + 1.9 R
        ({}, [1, 2], [1, 0], [2.0, 0.2]),
        # nothing to hold yet: 0.1 F
        ({}, [-1, 2], [0, 0], [-0.1, 0.2]),
        # alpha multiplies R and leaves F' as it is
        ({"retain_weight": 100}, [-1, 2], [1, 0], [120, 1.6]),
        # R' = R + F / 5 = (0.8, 0.4)
        ({"projection": "symmetric", "conflict_weights": [1, 1]}, [-1, 2], [1, 0], [0.8, 2.4]),
        # 0.8 F' + 1.2 R = (1.2, 0.8) has -2.8 with F; 0.8 F' + b R has 0.8 - 3 b: b = 4 / 15
        ({"keep_descent": True}, [-3, 1], [1, 0], [0.8 / 3, 0.8]),
        # has 2 with F as it is
        ({"keep_descent": True}, [-1, 2], [1, 0], [1.2, 1.6]),
        # opposite gradients: nothing is left of F, and no part of R lowers the forget loss
        ({"keep_descent": True}, [-2, 0], [1, 0], [0, 0]),
    ],
)
def test_one_tensor_by_hand(
    options: dict[str, Any], forget: list[float], retain: list[float], expected: list[float]
) -> None:
    run = Linear([2], **options)
    run.step([forget], [retain])
    assert run.gradients()[0] == pytest.approx(expected, abs=1e-12)
    assert all(value == value for value in run.rule.logs.values())


def random_conflict(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    forget, retain = torch.randn(2, 50, generator=generator, dtype=torch.float64)
    return (forget if forget @ retain < 0 else -forget), 1e-3 * retain


@pytest.mark.parametrize("seed", range(5))
def test_a_conflict_leaves_no_part_of_forget_along_retain(seed: int) -> None:
    """With the code's weights the step keeps 1.2 |R|^2 along R; the projected gradient alone forgets R's scale."""
    forget, retain = random_conflict(seed)
    run = Linear([50])
    run.step([forget.tolist()], [retain.tolist()])
    combined = torch.tensor(run.gradients()[0], dtype=torch.float64)
    assert (combined @ retain).item() == pytest.approx(1.2 * (retain @ retain).item(), rel=1e-6)
    alone = []
    for scale in (1.0, 7.0):
        run = Linear([50], conflict_weights=[1, 0])
        run.step([forget.tolist()], [(scale * retain).tolist()])
        alone.append(torch.tensor(run.gradients()[0], dtype=torch.float64))
    torch.testing.assert_close(alone[0], alone[1], rtol=1e-9, atol=1e-12)
    assert (alone[0] @ retain).abs() < 1e-6 * alone[0].norm() * retain.norm()
    assert alone[0].norm() < forget.norm()


@pytest.mark.parametrize(("scope", "expected"), [("per_param", [2.4, 2.2]), ("global", [3.7, 2.2])])
def test_one_decision_or_one_for_each_tensor(scope: str, expected: list[float]) -> None:
    """F -1 and 3, R 2 and 1: products -2 and 3.

    By tensor the first is in conflict and nothing is left of its F: 1.2 * 2; the second agrees: 0.3 + 1.9. Together
    they agree, -2 + 3 > 0: the first gets -0.1 + 3.8.
    """
    run = Linear([1, 1], projection_scope=scope)
    run.step([[-1], [3]], [[2], [1]])
    assert [value for row in run.gradients() for value in row or []] == pytest.approx(expected, abs=1e-12)


def test_a_tensor_that_one_loss_does_not_reach_agrees() -> None:
    run = Linear([1, 1, 1, 1])
    run.step([[-1], [3], None, None], [[2], None, [5], None])
    first, second, third, fourth = run.gradients()
    assert first == pytest.approx([2.4])
    assert second == pytest.approx([0.3])
    assert third == pytest.approx([9.5])
    assert fourth is None
    assert run.rule.logs["gradient_conflict"] == 1


def test_the_combined_gradient_is_added_to_what_is_there() -> None:
    run = Linear([2])
    run.parameters[0].grad = torch.tensor([100.0, 100.0], dtype=torch.float64)
    assert run.step([[-1, 2]], [[1, 0]]) == StepLosses(0.0, 0.0)
    assert run.gradients()[0] == pytest.approx([101.2, 101.6])


def test_micro_batches_are_summed_before_anything_is_decided() -> None:
    """F -4 then 6, R 1 and 1: the first alone is in conflict, their means 1 and 1 are not: 0.1 + 1.9."""
    run = Linear([1])
    run.step([[-4]], [[1]], scale=0.5, is_last=False)
    assert run.gradients() == [None]
    assert run.rule.logs == {}
    run.step([[6]], [[1]], scale=0.5)
    assert run.gradients()[0] == pytest.approx([2.0])
    run.parameters[0].grad = None
    run.step([[-4]], [[1]])
    assert run.gradients()[0] == pytest.approx([1.2])  # nothing is left over from the step before


def test_logs_by_hand() -> None:
    """F (-1, 2) and (3), R (1, 0) and (1): one of two in conflict, cosines -1/sqrt 5 and 1.

    The step is (1.2, 1.6) and (2.2), of square 8.84: 8.6 with F of square 14, 3.4 with R of square 2.
    """
    run = Linear([2, 1])
    run.step([[-1, 2], [3]], [[1, 0], [1]])
    assert run.rule.logs == pytest.approx(
        {
            "gradient_conflict": 0.5,
            "gradient_cosine": (1 - 5**-0.5) / 2,
            "gradient_norm_ratio": 7**0.5,
            "step_forget_cosine": 8.6 / (8.84 * 14) ** 0.5,
            "step_retain_cosine": 3.4 / (8.84 * 2) ** 0.5,
        }
    )


def trained(folder: Path, examples: dict[str, tuple[Example, ...]], work: Path, **batches: int) -> LanguageModel:
    model = load_model(ModelConfig(name=str(folder)))
    model.freeze_but([name for name, _ in model.network.named_parameters() if "down_proj" in name])
    train = TrainConfig(
        lr=0.05, epochs=1, schedule="constant", optimizer="sgd", max_grad_norm=0.0, checkpoints=False, **batches
    )
    rule = Orthogonal(Orthogonal.Config(conflict_weights=(1.0, 1.0), align_weights=(0.5, 1.0)))
    losses = GradientAscent(GradientAscent.Config()), NLL(NLL.Config())
    rows = examples["forget"], examples["retain"]
    guard = GuardConfig(utility_floor=0.0)
    job = TrainingJob(model, train, guard, 0, work)
    done = unlearn(job, prepare(job, Method(*losses, rule), *rows))
    assert [0 <= step.values["gradient_conflict"] <= 1 for step in done.steps] == [True, True]
    return model


def test_trainer_takes_the_same_steps_in_micro_batches(
    tiny_folder: Path, examples: dict[str, tuple[Example, ...]], tmp_path: Path
) -> None:
    """8 forget rows: two steps on 4, or on 2 and 2; plain SGD would show a wrong scale."""
    whole = trained(tiny_folder, examples, tmp_path / "whole", batch_size=4)
    apart = trained(tiny_folder, examples, tmp_path / "apart", batch_size=2, accumulation=2)
    start = dict(load_model(ModelConfig(name=str(tiny_folder))).network.named_parameters())
    found = dict(apart.network.named_parameters())
    for name, weight in whole.network.named_parameters():
        if weight.requires_grad:
            assert (weight - start[name]).abs().max() > 1e-4, "a test of steps needs steps"
        torch.testing.assert_close(found[name], weight, rtol=0, atol=1e-6)


@pytest.mark.parametrize("option", ["conflict_weights", "align_weights"])
@pytest.mark.parametrize("value", [[1.0], [1.0, 2.0, 3.0], [-1.0, 1.0]])
def test_two_weights_of_at_least_zero(option: str, value: list[float]) -> None:
    with pytest.raises(UserError, match=rf"combine\.{option}"):
        check(Orthogonal.Config, {option: value}, "combine")
