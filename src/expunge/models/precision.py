"""The precision plan: in which dtype weights are held, trained and multiplied, for every kind of device."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from expunge.core.errors import UserError
from expunge.models.merging import plain_network

MASTER = torch.float32
"""Weights that are trained: in half precision most optimizer steps would be rounded away."""
HALF = (torch.bfloat16, torch.float16)


@dataclass(frozen=True)
class Hardware:
    """What the plan asks of a device; build one by hand to see the plan for a machine that is not there."""

    kind: str
    """cpu, cuda, mps or another of torch's device types."""
    bfloat16: bool = False
    """Whether it multiplies in bfloat16 faster than in float32."""
    float16: bool = False
    """Whether it multiplies in float16 faster than in float32."""

    @classmethod
    def of(cls, device: torch.device) -> Hardware:
        """Read off a device of this machine."""
        if device.type == "cuda":
            with torch.cuda.device(device):
                fast = torch.cuda.is_bf16_supported(including_emulation=False)
            return cls("cuda", fast, torch.cuda.get_device_capability(device) >= (7, 0))
        if device.type == "cpu":
            found = torch.cpu.get_capabilities().items()
            return cls("cpu", any(bool(has) for name, has in found if name.endswith("bf16")))
        return cls(device.type)


@dataclass(frozen=True)
class Precision:
    """The dtypes of one model on one device."""

    stored: torch.dtype
    """Of the weights in their files, and of the weights that will be saved."""
    compute: torch.dtype
    """Of matrix products."""
    frozen: torch.dtype
    """Of weights in memory that are not trained: as stored, or wider. Never narrower: they are saved from there."""
    trained: torch.dtype = MASTER
    """Of weights in memory that are trained."""

    @property
    def autocast(self) -> bool:
        """Whether matrix products are narrower than float32, under `torch.autocast`."""
        return self.compute != torch.float32

    @property
    def scaled(self) -> bool:
        """Whether losses are scaled up before they are backpropagated: float16 has no gradients below 6e-8."""
        return self.compute == torch.float16


def compute_dtype(wanted: str, hardware: Hardware) -> torch.dtype:
    """The dtype of matrix products.

    Args:
        wanted: `model.precision`; auto: bfloat16 or else float16 where the device is fast at it, float32 elsewhere.
            float16 is only chosen on CUDA: a CPU gains nothing from it, and MPS is as fast in float32 for small models.
        hardware: the device.
    """
    if wanted != "auto":
        found = getattr(torch, wanted)
        assert isinstance(found, torch.dtype)
        return found
    if hardware.bfloat16:
        return torch.bfloat16
    return torch.float16 if hardware.kind == "cuda" and hardware.float16 else torch.float32


def plan(wanted: str, hardware: Hardware, stored: torch.dtype) -> Precision:
    """Every dtype of a model on a device.

    Frozen half-precision weights stay as they are on CUDA where products are in half precision too, and on other
    accelerators where it is the same one. In all other cases they are widened: without autocast a float32 master beside
    a bfloat16 weight is an error, and on a CPU some kernels (layer norm) refuse such a pair even with it.

    Args:
        wanted: `model.precision`.
        hardware: the device.
        stored: dtype of the weights in their files.
    """
    compute = compute_dtype(wanted, hardware)
    both_half = compute in HALF and stored in HALF
    kept = both_half and hardware.kind != "cpu" and (hardware.kind == "cuda" or stored == compute)
    return Precision(stored, compute, stored if kept or stored not in HALF else torch.float32)


def load_dtype(wanted: str, hardware: Hardware) -> torch.dtype | str:
    """The dtype for `from_pretrained`: `auto` (as stored) if some stored dtype is kept, else float32."""
    kept = any(plan(wanted, hardware, stored).frozen in HALF for stored in HALF)
    return "auto" if kept else torch.float32


def hold(network: Any, wanted: str, device: torch.device) -> torch.dtype:
    """Bring the weights of a network into the plan's dtypes, and give the dtype of its matrix products.

    Weights of a quantized network stay as they are: their layers convert them.

    Raises:
        UserError: the device cannot compute in the wanted precision.
    """
    hardware = Hardware.of(device)
    compute = compute_dtype(wanted, hardware)
    _check(compute, device)
    inner = plain_network(network)
    if not getattr(inner, "is_quantized", False):
        for weight in (*network.parameters(), *network.buffers()):
            if weight.dtype in HALF:
                weight.data = weight.data.to(plan(wanted, hardware, weight.dtype).frozen)
    return compute


def name_of(dtype: torch.dtype) -> str:
    """`bfloat16` for `torch.bfloat16`, as options and records write it."""
    return str(dtype).removeprefix("torch.")


def _check(compute: torch.dtype, device: torch.device) -> None:
    """Refuse a precision that torch would turn off with a warning."""
    if compute == torch.float32:
        return
    try:
        with torch.autocast(device.type, dtype=compute):
            works = torch.is_autocast_enabled(device.type)
    except RuntimeError:
        works = False
    if not works:
        raise UserError(
            f"model.precision: {device} cannot compute in {name_of(compute)} on this machine; "
            "use auto, which chooses what it can, or float32"
        )


def compute_deterministically() -> None:
    """Let torch choose deterministic kernels; it warns once about an operation without one.

    cuBLAS reads its environment variable on first use, so call this before the first product on the device.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True, warn_only=True)


def has_float64(device: torch.device) -> bool:
    """Whether a device computes in float64; MPS does not."""
    return device.type != "mps"


def widest(device: torch.device) -> torch.dtype:
    """float64, or float32 where the device has nothing wider."""
    return torch.float64 if has_float64(device) else torch.float32


def float64(values: Tensor) -> Tensor:
    """The same in float64: on its device, or on the CPU where the device has no float64."""
    return values.double() if has_float64(values.device) else values.cpu().double()
