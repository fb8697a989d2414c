"""A simulated accelerator, so that mistakes of device show where there is no accelerator.

Its tensors are on the device "simulated" and hold tensors of the CPU, on which every operation is computed. Like CUDA, it
refuses operands on different devices, generators of the CPU, and operations that have kernels for the CPU only. It does
not cast under autocast. Registration lasts as long as the process: tests use the device in a process of their own.
"""

import threading
from collections.abc import Callable, Iterator
from functools import cache
from importlib import resources
from typing import Any

import torch
import torch.utils.backend_registration as backends
import yaml
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

NAME = "simulated"
TRANSFERS = {"aten::copy_", "aten::_to_copy"}
INDEXING = {"aten::index", "aten::index_put", "aten::index_put_", "aten::_index_put_impl_"}
AVAILABLE = hasattr(backends, "_setup_privateuseone_for_python_backend")  # not in every torch
PORTABLE = {"CUDA", "CompositeExplicitAutograd", "CompositeExplicitAutogradNonFunctional", "CompositeImplicitAutograd"}


class DeviceTensor(Tensor):
    """A tensor of the simulated device.

    Attributes:
        held: the tensor of the CPU that has its values.
    """

    held: Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl

    @staticmethod
    def __new__(cls, held: Tensor) -> "DeviceTensor":
        placed = {"dtype": held.dtype, "layout": held.layout, "device": torch.device(NAME, 0)}
        with torch.inference_mode(False):  # views of ordinary tensors are ordinary tensors, even in inference mode
            return Tensor._make_wrapper_subclass(cls, held.shape, held.stride(), held.storage_offset(), **placed)

    def __init__(self, held: Tensor) -> None:
        self.held = held

    def __repr__(self) -> str:
        return f"DeviceTensor({self.held})"

    def tolist(self) -> Any:
        """As CUDA gives it, which torch refuses for subclasses."""
        return self.cpu().tolist()

    @classmethod
    def __torch_dispatch__(cls, operation, types, args=(), kwargs=None):
        return computed(operation, args, kwargs or {})


class SimulatedAccelerator(TorchDispatchMode):
    """A context in which the device can be used, after `register`."""

    def __torch_dispatch__(self, operation, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        if not concerns_device(args, kwargs):
            return operation(*args, **kwargs)
        with self:  # in inference mode composite operations arrive whole
            result = operation.decompose(*args, **kwargs)
        return computed(operation, args, kwargs) if result is NotImplemented else result


class BackendModule:
    """`torch.simulated`: what torch asks of a device."""

    def is_initialized(self) -> bool:
        return True

    def is_available(self) -> bool:
        return True

    def current_device(self) -> int:
        return 0

    def device_count(self) -> int:
        return 1

    def _is_in_bad_fork(self) -> bool:
        return False

    def manual_seed_all(self, seed: int) -> None:
        """Nothing: its random numbers are those of the CPU, which is seeded too."""

    def get_amp_supported_dtype(self) -> list[torch.dtype]:
        return [torch.bfloat16]


def register() -> None:
    """Make "simulated" a device of this process: once, before its first backward pass."""
    backends._setup_privateuseone_for_python_backend(rename=NAME, backend_module=BackendModule())
    torch._C._set_only_lift_cpu_tensors(True)  # so that `torch.tensor(…, device=…)` is dispatched
    torch.__future__.set_swap_module_params_on_conversion(True)  # so that `module.to` keeps its parameters, as for CUDA
    run = threading.Thread.run

    def run_on_device(thread: threading.Thread) -> None:
        with SimulatedAccelerator():  # which is of one thread
            run(thread)

    threading.Thread.run = run_on_device  # type: ignore[method-assign]


@cache
def cpu_only() -> set[str]:
    """Names of torch's operations that have a kernel for the CPU and none for CUDA."""
    declared = resources.files("torchgen").joinpath("packaged/ATen/native/native_functions.yaml").read_text()
    names = set()
    for entry in yaml.load(declared, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
        kernels = {backend for several in entry.get("dispatch", {}) for backend in several.split(", ")}
        if "CPU" in kernels and not kernels & PORTABLE:
            names.add("aten::" + entry["func"].partition("(")[0])
    return names


def leaves(*values: Any) -> Iterator[Any]:
    """All values, those in lists and tuples too."""
    for value in values:
        if isinstance(value, list | tuple):
            yield from leaves(*value)
        else:
            yield value


def mapped(function: Callable[[Any], Any], value: Any) -> Any:
    """The value with the function applied to each of its `leaves`."""
    if isinstance(value, list | tuple):
        return type(value)(mapped(function, item) for item in value)
    return function(value)


def concerns_device(args: tuple, kwargs: dict) -> bool:
    """Whether an operation has an operand on the device, or names the device."""
    return any(
        isinstance(x, DeviceTensor) or (isinstance(x, torch.device) and x.type == NAME)
        for x in leaves(args, *kwargs.values())
    )


def computed(operation: Any, args: tuple, kwargs: dict) -> Any:
    """The result of an operation that concerns the device.

    Raises:
        RuntimeError: CUDA would refuse the operation.
    """
    check(operation, args, kwargs)
    wrapped = {}  # what is changed in place stays the same tensor

    def held(x: Any) -> Any:
        if isinstance(x, DeviceTensor):
            wrapped[id(x.held)] = x
            return x.held
        return torch.device("cpu") if isinstance(x, torch.device) else x

    def placed(x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        # lazy conjugates are resolved: kernels called from here would ignore that they are lazy
        return wrapped[id(x)] if id(x) in wrapped else DeviceTensor(x.resolve_conj().resolve_neg())

    result = operation(*mapped(held, args), **{name: mapped(held, value) for name, value in kwargs.items()})
    asked = kwargs.get("device")
    leaves_device = asked is not None and torch.device(asked).type != NAME
    if leaves_device or (operation._schema.name in TRANSFERS and not concerns_device(args[:1], {"device": asked})):
        return result
    return mapped(placed, result)


def check(operation: Any, args: tuple, kwargs: dict) -> None:
    """Raise `RuntimeError` where CUDA would refuse an operation."""
    name = operation._schema.name
    if operation.name() in cpu_only():
        raise RuntimeError(f"{operation.name()} has a kernel for the CPU only")
    if any(isinstance(x, torch.Generator) for x in leaves(args, *kwargs.values())):
        raise RuntimeError(f"{operation.name()}: the generator is of the CPU")
    if name in TRANSFERS:
        return
    if name in INDEXING and isinstance(args[0], DeviceTensor):
        args = (args[0], *args[2:])  # indices may be on the CPU
    tensors = [x for x in leaves(args, *kwargs.values()) if isinstance(x, Tensor)]
    strays = [x for x in tensors if not isinstance(x, DeviceTensor)]
    on_device = len(strays) < len(tensors)
    in_list = any(isinstance(x, Tensor) for arg in args if isinstance(arg, list | tuple) for x in leaves(arg))
    if on_device and any(x.dim() or in_list for x in strays):  # a scalar of the CPU may join, but not in a list
        raise RuntimeError(f"{operation.name()}: expected all tensors to be on the same device")
