"""Forgetting is real: what is to go goes, what is to stay stays."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from short_run import Unlearning

from expunge.core.errors import UserError
from expunge.forget.deviation import Deviation
from expunge.train.config import TrainConfig
from expunge.train.unlearn import hold_out


@pytest.mark.parametrize("retain", ["nll", "kl"])
def test_npo_forgets_and_the_rest_stays(unlearning: Callable[..., Unlearning], retain: str) -> None:
    """Settings were chosen on seeds 0 to 2, where forget fell from 0.94 below 0.01 and retain ended above 0.73."""
    train = TrainConfig(lr=1e-3, epochs=10, batch_size=4, schedule="constant", checkpoints=False)
    run = unlearning(retain=retain, seed=7, train=train)
    assert run.probability(run.examples["forget"]) > 0.9
    assert run.probability(run.examples["retain"]) > 0.9
    run.run()
    assert run.probability(run.examples["forget"]) < 0.2
    assert run.probability(run.examples["retain"]) > 0.6


def test_a_loss_on_what_no_trained_weight_moves(unlearning: Callable[..., Unlearning]) -> None:
    """The attention of block 0 comes before its only trained matrix, so that nothing there can change."""
    loss = Deviation(Deviation.Config(site="attention"))
    run = unlearning(forget_loss=loss, module="layers.0.mlp.down_proj")
    with pytest.raises(UserError, match="a loss depends on no trained weight"):
        run.run()


@pytest.mark.parametrize(("share", "count"), [(0.15, 2), (0.5, 8), (0.99, 15)])
def test_hold_out_is_a_share_and_never_all(unlearning: Callable[..., Unlearning], share: float, count: int) -> None:
    """Of 16 rows: 0.15 is 2.4, so 2; 0.5 is 8; 0.99 is 15.8, but one must be left to train on, so 15."""
    rows = unlearning().examples["retain"]
    kept, held = hold_out(rows, share, seed=0)
    assert len(held) == count
    assert sorted(row.id for row in (*kept, *held)) == sorted(row.id for row in rows)
    assert hold_out(rows, share, seed=0) == (kept, held)
    assert hold_out(rows, share, seed=1)[1] != held
