"""How the Triton kernels are launched: from the second call on without Triton's own door, which costs the host most."""

from typing import Any

from torch import Tensor
from triton.runtime import KernelInterface

_COMPILED: dict[tuple[object, ...], tuple[Any, list[object]]] = {}


def _kind(x: object) -> object:
    """All of an argument but a tensor that Triton may compile another kernel for."""
    return (x == 1, x % 16 == 0, x.bit_length() > 31) if isinstance(x, int) else type(x)


def launch(kernel: KernelInterface[Any], programs: int, *args: Any, **options: object) -> None:
    """`kernel[(programs,)](*args, **options)`: `args` are all that is no tl.constexpr, a tensor first; on its device,
    which is the current one."""
    device = args[0].get_device()
    key: list[object] = [id(kernel), device, *options.items()]
    given = list(args)
    for at, x in enumerate(args):
        if isinstance(x, Tensor):
            given[at] = address = x.data_ptr()  # of a tensor Triton would ask the driver where it lies, each time
            plain = address % 16 == 0 and x.get_device() == device
            key.append(x.dtype if plain else (x.dtype, address % 16 == 0, x.device))
        else:
            key.append(_kind(x))
    found = _COMPILED.get(tuple(key))
    if found:
        compiled, constants = found
        compiled[programs, 1, 1](*given, *constants)
        return
    compiled = kernel[(programs,)](*args, **options)
    if compiled is not None:  # None where it is interpreted
        names = list(kernel.arg_names)[len(args) :]  # type: ignore[attr-defined]
        _COMPILED[tuple(key)] = compiled, [options[name] for name in names]
