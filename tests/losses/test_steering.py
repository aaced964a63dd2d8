"""Where a run steered, as read off what it saved."""

from __future__ import annotations

import torch

from expunge.losses.steering import mean_shifts, saved_directions, steered_layer
from expunge.models.base import LanguageModel


def test_directions_are_unit_vectors_by_topic() -> None:
    """(3, 4) has length 5; what has another name or shape is no direction."""
    found = saved_directions(
        {"direction.cyber": torch.tensor([3.0, 4.0]), "direction": torch.eye(2), "norms": torch.ones(2)}
    )
    assert list(found) == ["cyber"]
    assert torch.allclose(found["cyber"], torch.tensor([0.6, 0.8]))


def test_the_layer_that_was_told_then_the_highest_that_could_move_then_a_share_of_the_depth(
    tiny: LanguageModel,
) -> None:
    """Three blocks: 0.23 of the depth is 0.69, rounded to block 1."""
    trained = ["model.layers.0.mlp.down_proj.weight", "model.layers.2.mlp.down_proj.weight"]
    assert steered_layer(tiny, 0, True, trained) == 0
    assert steered_layer(tiny, None, True, trained) == 2
    assert steered_layer(tiny, None, False, trained) == 1
    assert steered_layer(tiny, None, True, []) == 1


def test_mean_shifts_by_topic() -> None:
    """Topic a moved by (1, 0) and (3, 0), on average (2, 0); topic b did not move."""
    moved = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 0.0]])
    assert mean_shifts(moved, ["a", "a", "b"]).tolist() == [[2.0, 0.0]]
    assert mean_shifts(torch.zeros(2, 3), [None, None]).shape == (0, 3)
