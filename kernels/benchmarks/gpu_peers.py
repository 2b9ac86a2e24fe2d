"""What the GPU benchmark compares: our kernels, the chunked form, and public kernels where they are installed."""

import contextlib
import importlib.util
import io
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from wkv import wkv6, wkv6_step, wkv7, wkv7_step

Inputs = list[Tensor]
# relative RMS of y, of the gradients, and of states with the gradient of s0
OURS = (2.5e-3, 3e-3, 1e-3)
PEERS = (6e-3, 6e-3, 6e-3)
BOUND = -0.606531


@dataclass(frozen=True)
class Way:
    """One implementation of an operator: `call` takes what `prepare` makes of our inputs and returns (y, s).

    `restore` turns such inputs, or their gradients, back into ours; a state is turned as s0 is.
    """

    name: str
    call: Callable[..., tuple[Tensor, Tensor]]
    bounds: tuple[float, float, float] = PEERS
    backward: bool = True
    only_one: bool = False  # sequence
    prepare: Callable[[Inputs], Inputs] = list
    restore: Callable[[Inputs], Inputs] = list


def ways(name: str) -> list[Way]:
    """Ours first; fla and rwkv where they are installed (rwkv's kernel is compiled here, which takes a minute)."""
    operator = {"wkv7": wkv7, "wkv6": wkv6}[name]
    found = [
        Way("wkv", operator, OURS),
        Way("wkv chunked", lambda *xs: operator(*xs, backend="chunked"), OURS),
    ]
    if importlib.util.find_spec("fla"):
        found += _fla(name)
    if name == "wkv7" and importlib.util.find_spec("rwkv"):
        found += _rwkv()
    return found


def _turned(inputs: Inputs) -> Inputs:
    """The last one, the state, as [K,V] instead of [V,K]."""
    return [*inputs[:-1], inputs[-1].mT.contiguous()]


def _fla(name: str) -> list[Way]:
    if name == "wkv6":
        from fla.ops.rwkv6 import chunk_rwkv6

        def call(r: Tensor, w: Tensor, k: Tensor, v: Tensor, u: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
            return chunk_rwkv6(r, k, v, w, u, scale=1.0, initial_state=s, output_final_state=True)

        return [Way("fla chunk", call, prepare=_turned, restore=_turned)]
    from fla.ops.rwkv7 import chunk_rwkv7

    def make(**options: object) -> Callable[..., tuple[Tensor, Tensor]]:
        return lambda *xs: chunk_rwkv7(*xs[:-1], initial_state=xs[-1], output_final_state=True, **options)

    best = {"lower_bound": BOUND, "chunk_size": 64, "disable_recompute": True}
    settings = {"fla": {}, "fla, bounded gate": best}
    return [Way(title, make(**options), prepare=_turned, restore=_turned) for title, options in settings.items()]


def _rwkv() -> list[Way]:
    """The serial CUDA kernel of PyPI's rwkv; it takes log(-w) in bf16, one sequence, and writes the state in place."""
    from torch.utils.cpp_extension import load

    spec = importlib.util.find_spec("rwkv")
    folder = Path(next(iter(spec.submodule_search_locations or []))) / "cuda"
    flags = ["--use_fast_math", "-O3", "-Xptxas", "-O3", "--extra-device-vectorization", "-D_N_=64"]
    sources = [str(folder / x) for x in ("rwkv7_op.cpp", "rwkv7.cu")]
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            load("wkv7s", sources, is_python_module=False, extra_cuda_cflags=flags)
    except (OSError, RuntimeError) as e:
        print(f"rwkv's CUDA kernel does not build here: {str(e).splitlines()[0]}")
        return []

    def call(*xs: Tensor) -> tuple[Tensor, Tensor]:
        *given, s = xs
        y, s = torch.empty_like(given[3]), s.clone()
        _, T, H, N = y.shape
        torch.ops.wkv7s.forward_bf16(1, T, H * N, H, s, *given, y)
        return y, s

    def prepare(xs: Inputs) -> Inputs:
        return [xs[0], xs[1].float().neg().log().to(xs[1].dtype), *xs[2:]]

    def restore(xs: Inputs) -> Inputs:
        return [xs[0], xs[1].float().exp().neg(), *xs[2:]]

    return [Way("rwkv CUDA", call, backward=False, only_one=True, prepare=prepare, restore=restore)]


@dataclass(frozen=True)
class Step:
    """One decode step: `call(*tokens, s)` of [B,T,H,K] inputs returns y and the state, which may be s itself."""

    name: str
    call: Callable[..., tuple[Tensor, Tensor]]
    bounds: tuple[float, float, float] = PEERS
    turned: bool = False  # states are [K,V]


def steps(name: str, tokens: int) -> list[Step]:
    """Ours in place for one token, the operator for several; fla's recurrent kernels, which make a new state."""
    step, operator = {"wkv7": (wkv7_step, wkv7), "wkv6": (wkv6_step, wkv6)}[name]

    def in_place(*xs: Tensor) -> tuple[Tensor, Tensor]:
        *given, s = xs
        return step(*(x[:, 0] if x.dim() == 4 else x for x in given), s)[:, None], s

    found = [Step("wkv step" if tokens == 1 else "wkv", in_place if tokens == 1 else operator, OURS)]
    if not importlib.util.find_spec("fla"):
        return found
    if name == "wkv7":
        from fla.ops.rwkv7 import fused_recurrent_rwkv7

        def recurrent(*xs: Tensor) -> tuple[Tensor, Tensor]:
            return fused_recurrent_rwkv7(*xs[:-1], scale=1.0, initial_state=xs[-1], output_final_state=True)
    else:
        from fla.ops.rwkv6 import fused_recurrent_rwkv6

        def recurrent(*xs: Tensor) -> tuple[Tensor, Tensor]:
            r, w, k, v, u, s = xs
            return fused_recurrent_rwkv6(r, k, v, w, u, scale=1.0, initial_state=s, output_final_state=True)

    return [*found, Step("fla recurrent", recurrent, turned=True)]
