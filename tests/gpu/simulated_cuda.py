"""Two simulated CUDA devices: tensors report `cuda:0` or `cuda:1` and are computed on the CPU.

What a GPU refuses is refused here: operations over several devices, a CPU generator for numbers that are made on the
GPU, `.numpy()`. What makes the host wait for a GPU is counted by the line that asked for it: reading a value, shapes
that depend on values, copies that are not asynchronous. Autocast is that of CUDA. Kernels, their rounding, memory and
time are the CPU's.

A CPU build of torch lacks what the autograd engine wants of a CUDA device, so a wrapper is XLA to the engine (which
treats XLA as a device without streams) and CUDA to autocast and to Python. The guard that the engine needs is a dummy
that torch has for backends written in Python; its address is copied within torch's own table.
"""

from __future__ import annotations

import ctypes
import traceback
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_map

COUNT = 2
_TABLE = "_ZN3c104impl26device_guard_impl_registryE"
_CUDA, _XLA, _PRIVATE = 1, 9, 20
_INNER = ("xla", "privateuseone")
"""What torch's C++ code calls the device of a wrapper, and that of the guard."""
_MEMORY = 80 << 30
_current = [0]
_last = [0]
"""Device of the wrapper that was used last: torch's C++ code, which takes a device from a wrapper, sees no index."""
_active: list[SimulatedCuda] = []


class MixedDevicesError(RuntimeError):
    """What a GPU would refuse."""


class _Shell(torch.Tensor):
    """Shape and dtype of a wrapper, on an XLA device."""

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise AssertionError(func)


class CudaTensor(torch.Tensor):
    """A tensor that reports a CUDA device; its values are in `inner`."""

    inner: torch.Tensor
    place: torch.device

    @staticmethod
    def __new__(cls, inner: torch.Tensor, place: torch.device) -> CudaTensor:
        shell = torch.Tensor._make_wrapper_subclass(
            _Shell,
            inner.shape,
            strides=inner.stride(),
            storage_offset=inner.storage_offset(),
            dtype=inner.dtype,
            device="xla:0",
        )
        with torch._C._DisableTorchDispatch():
            return torch.Tensor._make_subclass(cls, shell, False, device_for_backend_keys=torch.device("cuda"))

    def __init__(self, inner: torch.Tensor, place: torch.device) -> None:
        self.inner = inner
        self.place = place

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(func, args, kwargs or {})

    @property
    def device(self) -> torch.device:
        return self.place

    @property
    def is_cuda(self) -> bool:
        return True

    @property
    def is_xla(self) -> bool:
        return False

    @property
    def data(self) -> torch.Tensor:
        with torch.no_grad():
            return torch.Tensor.detach(self)

    @data.setter
    def data(self, new: torch.Tensor) -> None:
        with torch.no_grad():
            torch.Tensor.data.__set__(self, new)
        if isinstance(new, CudaTensor):
            self.inner, self.place = new.inner, new.place

    def get_device(self) -> int:
        return self.place.index or 0

    def tolist(self) -> Any:
        _wait("read")
        return self.inner.tolist()

    def numpy(self, *, force: bool = False) -> Any:
        _refuse(f"can't convert {self.place} tensor to numpy")

    def untyped_storage(self) -> Any:
        return self.inner.untyped_storage()

    def data_ptr(self) -> int:
        return self.inner.data_ptr()

    def __repr__(self, *, tensor_contents: Any = None) -> str:
        return f"CudaTensor({self.inner!r}, {self.place})"

    def __deepcopy__(self, memo: dict[int, Any]) -> torch.Tensor:
        if id(self) not in memo:
            made = CudaTensor(self.inner.clone(), self.place).requires_grad_(self.requires_grad and self.is_leaf)
            if getattr(self, "_is_param", False):
                made._is_param = True
            memo[id(self)] = made
        return memo[id(self)]


_ANYWHERE = {"copy_", "_to_copy", "set_", "_local_scalar_dense"}
"""Operations that lead from one device to another."""
_INDEXED = {"index", "index_put", "index_put_", "_index_put_impl_", "_unsafe_index", "_unsafe_index_put"}
"""Operations that take indices from the CPU."""
_NUMBERS = {
    "add",
    "sub",
    "mul",
    "div",
    "where",
    "maximum",
    "minimum",
    "pow",
    "lerp",
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
}
_NUMBERS |= {"masked_fill", "fill", "rsub", "remainder", "clamp", "bitwise_and", "bitwise_or", "logical_and", "atan2"}
_NUMBERS |= {"addcmul", "addcdiv", "_foreach_add", "_foreach_mul", "_foreach_div"}
"""Elementwise operations, which take a CPU tensor without dimensions for a number."""
_WAITS = {"_local_scalar_dense": "read", "equal": "read", "is_nonzero": "read", "linalg_eigh": "eigh"}
_WAITS |= dict.fromkeys(
    ("nonzero", "masked_select", "bincount", "_unique2", "unique_dim", "unique_consecutive"), "shape"
)


def _line() -> str:
    """The line of the package that led here, or the one that called torch."""
    frames = [(frame.f_code.co_filename, line) for frame, line in traceback.walk_stack(None)]
    own = [one for one in frames if "/src/expunge/" in one[0]]
    outside = own or [one for one in frames if "/torch/" not in one[0] and one[0] != __file__]
    if not outside:
        return "?"
    return f"{outside[0][0].rpartition('/expunge/')[2].rpartition('site-packages/')[2]}:{outside[0][1]}"


def _wait(kind: str) -> None:
    if _active:
        _active[-1].waits[_line(), kind] += 1


def _refuse(text: str) -> Any:
    if _active:
        _active[-1].errors[_line(), text] += 1
    raise MixedDevicesError(text)


def _place(device: Any) -> torch.device | None:
    """The simulated device that is meant; None for the CPU."""
    device = torch.device(device)
    if device.type not in ("cuda", *_INNER):
        return None
    if device.type == "xla":
        return torch.device("cuda", _last[0])
    return torch.device("cuda", _current[0] if device.index is None or device.type in _INNER else device.index)


def _check(name: str, tensors: list[torch.Tensor], kwargs: dict[str, Any], made_on: torch.device | None) -> None:
    places = {one.device for one in tensors}
    generator = kwargs.get("generator")
    if generator is not None and made_on is not None:
        _refuse(f"{name}: a generator of the CPU for numbers on {made_on}")
    if len(places) < 2 or name in _ANYWHERE:
        return
    rest = [one for one in tensors[1:] if one.device != tensors[0].device]
    indices = all(one.device.type == "cpu" and (one.dim() == 0 or not one.is_floating_point()) for one in rest)
    if name in _INDEXED and tensors[0].is_cuda and indices:
        if any(one.dim() for one in rest):
            _wait("index from the CPU")
        return
    on_cpu = [one for one in tensors if one.device.type == "cpu"]
    numbers = name.removesuffix("_") in _NUMBERS and all(one.dim() == 0 for one in on_cpu)
    if not numbers or len(places) > 2 or not on_cpu:
        _refuse(f"{name}: tensors on {', '.join(sorted(map(str, places)))}")


def _count(name: str, func: Any, args: Any, kwargs: dict[str, Any], on_gpu: bool, made_on: torch.device | None) -> None:
    if name == "_to_copy" and kwargs.get("device") is not None and not kwargs.get("non_blocking"):
        if on_gpu and made_on is None:
            _wait("copy to the CPU")
        elif not on_gpu and made_on is not None:
            _wait("copy from the CPU")
    elif name == "copy_" and isinstance(args[1], torch.Tensor):
        non_blocking = kwargs.get("non_blocking", args[2] if len(args) > 2 else False)
        if isinstance(args[0], CudaTensor) != isinstance(args[1], CudaTensor) and not non_blocking:
            _wait("copy from the CPU" if isinstance(args[0], CudaTensor) else "copy to the CPU")
    elif not on_gpu:
        return
    elif name in _WAITS:
        _wait(_WAITS[name])
    elif name in ("index", "index_put", "index_put_"):
        masks = [one for one in args[1] if isinstance(one, torch.Tensor) and one.dtype == torch.bool]
        if masks and not (name != "index" and len(masks) == 1 and args[2].numel() == 1):
            _wait("shape")
    elif name == "repeat_interleave" and func._overloadname != "self_int" and kwargs.get("output_size") is None:
        _wait("shape")


def _plain(value: Any, seen: list[torch.Tensor]) -> Any:
    """What is computed with; every tensor is noted. (torch's own functions for trees take half of a run's time.)"""
    if isinstance(value, torch.Tensor):
        seen.append(value)
        return value.inner if isinstance(value, CudaTensor) else value
    return type(value)(_plain(one, seen) for one in value) if isinstance(value, list | tuple) else value


def _call(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    """Check, count, and compute on the CPU."""
    name = func._schema.name.partition("::")[2]
    tensors: list[torch.Tensor] = []
    plain_args = tuple(_plain(one, tensors) for one in args)
    plain = {key: _plain(one, tensors) for key, one in kwargs.items()}
    simulated = [one for one in tensors if isinstance(one, CudaTensor)]
    asked = kwargs.get("device")
    if simulated:
        _last[0] = simulated[0].place.index or 0
    made_on = _place(asked) if asked is not None else simulated[0].place if simulated else None
    if asked is not None and torch.device(asked).type in _INNER and simulated:
        made_on = simulated[0].place
    _check(name, tensors, kwargs, made_on)
    _count(name, func, args, kwargs, bool(simulated), made_on)
    if asked is not None:
        plain["device"] = torch.device("cpu") if made_on is not None else asked
    plain.pop("pin_memory", None)
    if name == "histc" and not plain_args[0].is_floating_point():
        plain_args = (plain_args[0].double(), *plain_args[1:])  # no such kernel on the CPU
    if name == "native_layer_norm":  # the GPU's takes weights that are narrower than the input
        plain_args = tuple(one.to(plain_args[0].dtype) if isinstance(one, torch.Tensor) else one for one in plain_args)
    out = func(*plain_args, **plain)
    if made_on is not None and _active and not _active[-1].float64:
        made = out if isinstance(out, list | tuple) else (out,)
        if any(isinstance(one, torch.Tensor) and one.dtype == torch.float64 for one in made):
            _refuse(f"{name}: float64 on {made_on}")
    return _wrapped(func, args, kwargs, out, made_on)


def _wrapped(func: Any, args: Any, kwargs: dict[str, Any], out: Any, made_on: torch.device | None) -> Any:
    """What was written in place is the tensor that was given; all else is new."""
    if isinstance(out, torch.Tensor) and not func._schema.is_mutable:
        return out if made_on is None or isinstance(out, CudaTensor) else CudaTensor(out, made_on)
    written = {
        frozenset(argument.alias_info.before_set): args[place] if place < len(args) else kwargs.get(argument.name)
        for place, argument in enumerate(func._schema.arguments)
        if argument.alias_info is not None and argument.alias_info.is_write
    }

    def wrap(value: Any, alias: Any) -> Any:
        if alias is not None and alias.is_write:
            given = written.get(frozenset(alias.before_set))
            if isinstance(given, torch.Tensor):
                return given
        if isinstance(value, torch.Tensor):
            return value if made_on is None or isinstance(value, CudaTensor) else CudaTensor(value, made_on)
        return type(value)(wrap(one, None) for one in value) if isinstance(value, list | tuple) else value

    returns = func._schema.returns
    if len(returns) == 1 or not isinstance(out, tuple):
        return wrap(out, returns[0].alias_info if returns else None)
    return tuple(wrap(one, given.alias_info) for one, given in zip(out, returns, strict=True))


class SimulatedCuda(TorchDispatchMode):
    """Within this block two CUDA devices are there.

    Args:
        old: of a generation that multiplies in float16, not in bfloat16 (Volta, Turing).
        float64: refused without it, as by MPS.

    Raises:
        RuntimeError: this version of torch has not got what the simulation needs.
    """

    def __init__(self, old: bool = False, float64: bool = True) -> None:
        super().__init__()
        self.old = old
        self.float64 = float64
        self.waits: Counter[tuple[str, str]] = Counter()
        """(line, kind) -> how often the host waited there."""
        self.errors: Counter[tuple[str, str]] = Counter()
        """(line, what was refused) -> how often, also where the error was caught."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _call(func, args, kwargs or {})

    def __enter__(self) -> SimulatedCuda:
        _install()
        torch.cuda.is_bf16_supported = lambda including_emulation=True: including_emulation or not self.old
        torch.cuda.get_device_capability = lambda device=None: (7, 5) if self.old else (9, 0)
        _active.append(self)
        torch._C._set_only_lift_cpu_tensors(True)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        torch._C._set_only_lift_cpu_tensors(False)
        _active.pop()

    def table(self, count: int = 30) -> str:
        """The lines that wait most often."""
        return "\n".join(f"{number:7d}  {kind:20s} {line}" for (line, kind), number in self.waits.most_common(count))


def _install() -> None:
    """Give torch a guard, and answers to what its users ask of a GPU; once."""
    if getattr(torch, "_simulated_cuda", None):
        return
    try:
        library = ctypes.CDLL(str(Path(torch.__file__).parent / "lib" / "libc10.so"))
        table = (ctypes.c_void_p * (_PRIVATE + 1)).in_dll(library, _TABLE)
        guard = type("Guard", (torch._C._acc.DeviceGuard,), {"type_": lambda self: _private_type()})()
        torch._C._acc.register_python_privateuseone_device_guard(guard)
        table[_CUDA] = table[_XLA] = table[_PRIVATE]
    except (AttributeError, OSError, ValueError) as error:
        raise RuntimeError(f"torch {torch.__version__} has no device guard to borrow: {error}") from None
    torch._simulated_cuda = guard
    _patch_tensors()
    _patch_cuda()
    _patch_files()


def _private_type() -> Any:
    return torch._C._autograd.DeviceType.PrivateUse1


def _patch_tensors() -> None:
    for name in ("tensor", "as_tensor"):
        original = getattr(torch, name)

        def made(data: Any, *args: Any, _original: Any = original, device: Any = None, **kwargs: Any) -> torch.Tensor:
            if isinstance(data, torch.Tensor) and device is None:
                return _original(data, *args, **kwargs)
            found = _original(data, *args, **kwargs)
            return found if device is None else found.to(device)

        setattr(torch, name, made)
    torch.inference_mode = lambda mode=True: torch.no_grad()  # a wrapper cannot be an inference tensor
    torch.Tensor.pin_memory = lambda self, device=None: self
    apply = torch.nn.Module._apply

    def _apply(self: Any, change: Any, recurse: bool = True) -> Any:
        """A plain parameter is replaced by a wrapper; a wrapper stays the object that it is."""
        wrapped = any(isinstance(one, CudaTensor) for one in self._parameters.values())
        before = torch.__future__.get_overwrite_module_params_on_conversion()
        torch.__future__.set_overwrite_module_params_on_conversion(not wrapped)
        try:
            return apply(self, change, recurse)
        finally:
            torch.__future__.set_overwrite_module_params_on_conversion(before)

    torch.nn.Module._apply = _apply
    torch.amp.is_autocast_available = torch.amp.autocast_mode.is_autocast_available = lambda kind: True


class _Current:
    """`torch.cuda.device`."""

    def __init__(self, device: Any) -> None:
        self.index = device if isinstance(device, int) else torch.device(device).index

    def __enter__(self) -> None:
        self.before = _current[0]
        _current[0] = self.before if self.index is None else self.index

    def __exit__(self, *_: Any) -> None:
        _current[0] = self.before


def _patch_cuda() -> None:
    cuda = torch.cuda
    properties = {"name": "simulated", "major": 9, "minor": 0, "total_memory": _MEMORY, "multi_processor_count": 132}
    state = torch.zeros(16, dtype=torch.uint8)
    constants: dict[str, Any] = {
        "is_available": True,
        "is_initialized": True,
        "device_count": COUNT,
        "get_device_name": "simulated",
        "get_device_properties": type("Properties", (), properties)(),
        "mem_get_info": (_MEMORY, _MEMORY),
        "get_rng_state": state,
        "get_rng_state_all": [state] * COUNT,
        **dict.fromkeys(("max_memory_allocated", "memory_allocated", "max_memory_reserved", "memory_reserved"), 0),
        **dict.fromkeys(("_lazy_init", "init", "empty_cache", "synchronize", "reset_peak_memory_stats"), None),
        **dict.fromkeys(("manual_seed", "manual_seed_all", "set_rng_state", "set_rng_state_all"), None),
    }
    for name, value in constants.items():
        for module in (cuda, cuda.random):
            if module is cuda or hasattr(module, name):
                setattr(module, name, lambda *args, _value=value, **kwargs: _value)
    cuda.current_device = lambda: _current[0]
    cuda.set_device = lambda device: _current.__setitem__(0, _Current(device).index or 0)
    cuda.device = _Current


def _patch_files() -> None:
    """Files hold values, which a wrapper's storage has not got."""
    import safetensors.torch
    from transformers import modeling_utils

    def plain(value: Any) -> Any:
        return tree_map(lambda one: one.inner.detach() if isinstance(one, CudaTensor) else one, value)

    def outside(function: Any) -> Any:
        def call(value: Any, *args: Any, **kwargs: Any) -> Any:
            with _disable_current_modes():
                return function(plain(value), *args, **kwargs)

        return call

    safetensors.torch.save_file = outside(safetensors.torch.save_file)
    torch.save = outside(torch.save)
    save_pretrained = modeling_utils.PreTrainedModel.save_pretrained

    def save(self: Any, *args: Any, **kwargs: Any) -> Any:
        with _disable_current_modes():
            state = plain(kwargs.pop("state_dict", None) or dict(self.state_dict()))
            return save_pretrained(self, *args, state_dict=state, **kwargs)

    modeling_utils.PreTrainedModel.save_pretrained = save
    load = modeling_utils.PreTrainedModel.from_pretrained.__func__

    def from_pretrained(cls: Any, *args: Any, **kwargs: Any) -> Any:
        with _disable_current_modes():  # on the CPU in any case
            found = load(cls, *args, **kwargs)
            network = found[0] if isinstance(found, tuple) else found
            fresh = dict(type(network)(network.config).named_buffers())
            for name, buffer in network.named_buffers():
                buffer.copy_(fresh[name])  # transformers leaves some of them uninitialised beside patched tensors
        return found

    modeling_utils.PreTrainedModel.from_pretrained = classmethod(from_pretrained)
