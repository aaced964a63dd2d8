"""The hash of weights: computed once for each version of them, however they are changed."""

from __future__ import annotations

import hashlib
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from expunge.models import fingerprint
from expunge.models.fingerprint import Fingerprint


@pytest.fixture
def hashes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every hash that is computed."""
    found: list[str] = []
    digest = fingerprint._digest

    def counted(state: dict[str, Tensor]) -> str:
        found.append(digest(state))
        return found[-1]

    monkeypatch.setattr(fingerprint, "_digest", counted)
    return found


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(200, 100), nn.BatchNorm1d(100), nn.Linear(100, 1, bias=False))


def test_it_is_the_hash_of_names_shapes_and_bytes() -> None:
    layer = nn.Linear(2, 1, bias=False)
    wanted = hashlib.sha256(b"weight(1, 2)torch.float32" + layer.weight.detach().numpy().tobytes()).hexdigest()
    assert Fingerprint().of(layer) == wanted


def _swap_chunks(weight: Tensor) -> None:
    """Exchange the first two runs of 32 KB, which leaves the sum over all as it is."""
    runs = weight.data.flatten()[: 2 * 8192].view(2, 8192)
    weight.data.flatten()[: 2 * 8192] = runs.flip(0).flatten()


CHANGES: dict[str, Callable[[nn.Module], object]] = {
    "an optimizer's step": lambda net: net[0].weight.grad is None and torch.no_grad()(net[0].weight.add_)(1e-3),  # type: ignore[index,union-attr,operator]
    "one bit through .data": lambda net: net[0].weight.data.view(torch.int32)[3, 7].bitwise_xor_(1),  # type: ignore[index,union-attr,operator]
    "the last value": lambda net: net[2].weight.data[0, -1].neg_(),  # type: ignore[index,union-attr,operator]
    "two values exchanged": lambda net: net[2].weight.data.copy_(net[2].weight.data.flip(1)),  # type: ignore[index,union-attr,operator]
    "runs exchanged": lambda net: _swap_chunks(net[0].weight),  # type: ignore[index,arg-type]
    "another tensor": lambda net: setattr(net[0].weight, "data", 2 * net[0].weight.data),  # type: ignore[index,union-attr,operator]
    "a buffer": lambda net: net[1].running_mean.fill_(1),  # type: ignore[index,union-attr,operator]
    "precision": lambda net: net[0].half(),  # type: ignore[index,operator]
    "a layer more": lambda net: net.append(nn.Linear(1, 1)),  # type: ignore[operator]
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_change_is_seen_and_nothing_is_hashed_twice(name: str, hashes: list[str]) -> None:
    net, known = network(), Fingerprint()
    before = known.of(net)
    assert known.of(net) == before
    assert len(hashes) == 1
    CHANGES[name](net)
    after = known.of(net)
    assert after == known.of(net) != before
    assert after == Fingerprint().of(net)
    assert hashes == [before, after, after]
