"""Backups of weights that are changed temporarily, kept outside the memory that the model needs."""

from __future__ import annotations

import shutil
import sys
import tempfile

import torch
from torch import Tensor, nn

from expunge.core.errors import ModelLost
from expunge.models.batches import free_memory
from expunge.models.tensor_store import StateMemory, TensorStore

_SHARE = 0.5
"""Of the free memory of the host that the weights of a model on another device may take."""


class WeightBackup:
    """Copies of the weights of one model, each made once.

    Those of a model on the CPU lie in a temporary file, if the disk has room for it: a copy in memory would double what
    the model takes. Those of a model on another device lie in the memory of the host up to half of what is free there,
    and in the file beyond it.

    Args:
        device: of the model.
        num_bytes: of all weights that may be kept.
    """

    def __init__(self, device: torch.device, num_bytes: int) -> None:
        self._store: TensorStore[str] = TensorStore(StateMemory(_bound(device, num_bytes)))

    def keep(self, name: str, weight: Tensor) -> None:
        """Copy a weight as it is now, unless it was copied before.

        Raises:
            DiskError: there is no room for it.
        """
        if name not in self._store:
            self._store.put(name, weight)

    def __getitem__(self, name: str) -> Tensor:
        """A kept weight on the CPU."""
        return self._store[name]

    def __contains__(self, name: str) -> bool:
        return name in self._store

    @torch.no_grad()
    def put_back(self, name: str, weight: nn.Parameter, dtype: torch.dtype) -> None:
        """Give a weight its kept values, and the dtype that it had.

        Raises:
            ModelLost: they cannot be read.
        """
        try:
            if weight.dtype == dtype:
                self._store.load(name, weight.data)
            else:
                weight.data = self._store[name].to(weight.device)
        except OSError as error:
            raise ModelLost(
                f"{name}: the original values cannot be read back from {error.filename}: {error}"
            ) from error


def weight_backup(network: nn.Module) -> WeightBackup:
    """A backup for the weights of a network, still empty."""
    weights = list(network.parameters())
    return WeightBackup(weights[0].device, sum(weight.nbytes for weight in weights))


def _bound(device: torch.device, num_bytes: int) -> int:
    """Bytes of memory that copies may take."""
    if device.type != "cpu":
        return int(min(_SHARE * free_memory(torch.device("cpu")), sys.maxsize))
    return 0 if shutil.disk_usage(tempfile.gettempdir()).free > num_bytes else sys.maxsize
