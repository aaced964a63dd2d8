"""What training needed is gone when it is over, without waiting for Python's collector of circles."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from short_run import Unlearning

from expunge.core.memory import MemoryExhausted
from expunge.data.example import Example
from expunge.models.base import LanguageModel
from expunge.retain.nll import NLL
from expunge.train.config import TrainConfig
from expunge.train.teach import teach
from expunge.train.trainer import UnlearnTrainer


@pytest.fixture
def traces(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[weakref.ref[Any]]]:
    """Weak references to every trainer, optimizer and moment from here on; nothing is collected meanwhile."""
    found: list[weakref.ref[Any]] = []
    step = UnlearnTrainer.training_step

    def watched(self: UnlearnTrainer, *args: Any, **kwargs: Any) -> Any:
        optimizer = getattr(self.optimizer, "optimizer", self.optimizer)
        assert optimizer is not None
        moments = [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
        found.extend(weakref.ref(one) for one in (self, optimizer, self.lr_scheduler, *moments))
        return step(self, *args, **kwargs)

    monkeypatch.setattr(UnlearnTrainer, "training_step", watched)
    monkeypatch.setattr(gc, "collect", lambda *_: 0)
    gc.disable()
    yield found
    gc.enable()


def _are_gone(traces: list[weakref.ref[Any]]) -> bool:
    assert len(traces) > 20  # moments among them
    return all(trace() is None for trace in traces)


@pytest.mark.parametrize("optimizer", ["adamw_torch", "hf_adamw"])
def test_after_unlearning(
    unlearning: Callable[..., Unlearning], traces: list[weakref.ref[Any]], optimizer: str
) -> None:
    unlearning(train=TrainConfig(lr=1e-3, epochs=1, batch_size=4, optimizer=optimizer)).run()
    assert _are_gone(traces)


def test_after_teaching(
    tiny: LanguageModel, examples: dict[str, tuple[Example, ...]], tmp_path: Path, traces: list[weakref.ref[Any]]
) -> None:
    tiny.freeze_but([name for name, _ in tiny.network.named_parameters()])
    teach(tiny, examples["forget"], NLL(NLL.Config()), TrainConfig(epochs=1, batch_size=4), 0, tmp_path)
    assert _are_gone(traces)


def test_a_step_that_does_not_fit_is_one_line_and_frees_what_it_held(
    unlearning: Callable[..., Unlearning], traces: list[weakref.ref[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The checkpoint of the first epoch stays, so that the run can go on."""
    run = unlearning(train=TrainConfig(lr=1e-3, epochs=2, batch_size=4))

    def fail(number: int) -> None:
        if number == 3:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")

    with pytest.raises(MemoryExhausted) as error:
        run.run(after_step=fail)
    line = str(error.value)
    assert "training ran out of memory" in line
    assert "\n" not in line
    for option in ("train.batch_size", "train.gradient_checkpointing", "model.adapter", "model.precision"):
        assert option in line
    assert [path.name for path in run.folder.glob("checkpoint-*")] == ["checkpoint-2"]
    alive = {type(trace()).__name__ for trace in traces}
    assert alive <= {"NoneType", "UnlearnTrainer", "LambdaLR"}  # the error's frames hold empty shells, no moments
