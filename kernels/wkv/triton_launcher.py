"""How the Triton kernels are launched: from the second call on without Triton's own door, which costs the host most."""

from typing import Any

from torch import Tensor
from triton.runtime import KernelInterface

_COMPILED: dict[tuple[object, ...], tuple[Any, list[object]]] = {}


def _kind(x: object) -> object:
    """All of an argument that Triton may compile another kernel for."""
    if isinstance(x, Tensor):
        return x.dtype, x.data_ptr() % 16 == 0
    if isinstance(x, int):
        return x == 1, x % 16 == 0, x.bit_length() > 31
    return type(x)


def launch(kernel: KernelInterface[Any], programs: int, *args: Any, **options: object) -> None:
    """`kernel[(programs,)](*args, **options)`: `args` are all that is no tl.constexpr, a tensor first; on its device,
    which is the current one."""
    key = (id(kernel), args[0].get_device(), *map(_kind, args), *options.items())
    found = _COMPILED.get(key)
    if found:
        compiled, constants = found
        compiled[programs, 1, 1](*args, *constants)
        return
    compiled = kernel[(programs,)](*args, **options)
    if compiled is not None:  # None where it is interpreted
        names = list(kernel.arg_names)[len(args) :]  # type: ignore[attr-defined]
        _COMPILED[key] = compiled, [options[name] for name in names]
