"""What every operator checks at its door: shapes, dtypes, devices, and what `cu_seqlens` and `chunk_states` may be."""

from collections.abc import Sequence
from importlib.util import find_spec
from itertools import pairwise

import torch
from torch import Tensor

FLOATS = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
# Found once: torch.compile cannot trace the search.
HAS_TRITON = find_spec("triton") is not None
# The largest K and V of the Triton kernels that work on whole chunks: of 16-bit inputs, and where an input is fp32.
WIDEST, WIDEST_EXACT = 128, 64
# The largest number of tokens that are better walked one after the other, where no gradient is asked for.
FEW = 32


def check_tensor(name: str, x: Tensor, axes: str, want: tuple[int | None, ...], device: torch.device) -> None:
    """Refuse `x` unless it is a float tensor of shape `want` (None: any length) on `device`; `axes` names its axes."""
    if isinstance(x, Tensor) and x.shape == want and x.dtype in FLOATS and x.device == device:
        return  # at once: a small call on a GPU waits for its checks
    if not isinstance(x, Tensor):
        raise TypeError(f"{name}: expected a torch tensor {axes}, got {type(x).__name__}")
    if x.dtype not in FLOATS:
        raise TypeError(f"{name}: expected float32, float64, bfloat16 or float16, got {x.dtype}; convert it")
    if x.dim() != len(want) or any(n is not None and n != m for n, m in zip(want, x.shape, strict=True)):
        known = ", ".join(
            a if n is None else f"{a}={n}" for a, n in zip(axes.strip("[]").split(","), want, strict=True)
        )
        raise ValueError(f"{name}: expected [{known}], got {list(x.shape)}")
    if x.device != device:
        raise ValueError(f"{name}: expected device {device} (that of r), got {x.device}; move it with .to()")


def check_inputs(keys: dict[str, Tensor], v: Tensor) -> tuple[int, int, int, int, int]:
    """Check `r` and its companions [B,T,H,K] and `v` [B,T,H,V]; returns B, T, H, V, K."""
    r = keys["r"]
    device = r.device if isinstance(r, Tensor) else torch.device("cpu")
    check_tensor("r", r, "[B,T,H,K]", (None,) * 4, device)
    batch, tokens, heads, channels = r.shape
    for name, x in keys.items():
        if x is not r:
            check_tensor(name, x, "[B,T,H,K]", (batch, tokens, heads, channels), device)
    rows = v.shape[3] if isinstance(v, Tensor) and v.dim() == 4 and v.shape[:3] == r.shape[:3] else None
    check_tensor("v", v, "[B,T,H,V]", (batch, tokens, heads, rows), device)
    return batch, tokens, heads, v.shape[3], channels


def compute_dtype(*inputs: Tensor) -> torch.dtype:
    """The dtype of the recurrence and of the state: float64 if any input is float64, else float32."""
    return torch.float64 if torch.float64 in [x.dtype for x in inputs] else torch.float32


def start_state(
    s0: Tensor | None, shape: tuple[int, ...], packed: bool, dtype: torch.dtype, device: torch.device
) -> Tensor:
    """`s0` in the recurrence's dtype, zeros for None; it may be the caller's own tensor, which no backend writes to."""
    if s0 is None:
        return torch.zeros(shape, dtype=dtype, device=device)
    check_tensor("s0", s0, "[n,H,V,K]" if packed else "[B,H,V,K]", shape, device)
    if s0.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"s0: expected float32 (or float64), got {s0.dtype}; pass s0.float()")
    return s0.to(dtype)


def sequence_lengths(cu_seqlens: Tensor | Sequence[int] | None, batch: int, tokens: int) -> list[int] | None:
    """The length of each packed sequence, or None where nothing is packed."""
    if cu_seqlens is None:
        return None
    if isinstance(cu_seqlens, Tensor):
        if cu_seqlens.dim() != 1 or cu_seqlens.dtype not in (torch.int32, torch.int64):
            got = f"{cu_seqlens.dtype} {list(cu_seqlens.shape)}"
            raise TypeError(f"cu_seqlens: expected an int32 or int64 tensor [n+1], got {got}")
        cu_seqlens = cu_seqlens.tolist()
    ends = list(cu_seqlens)
    if batch != 1:
        raise ValueError(f"cu_seqlens: expected batch axis 1 (the sequences packed along T), got B={batch}")
    rising = all(a <= b for a, b in pairwise(ends))
    if len(ends) < 2 or ends[0] != 0 or ends[-1] != tokens or not rising:
        shown = str(ends if len(ends) <= 8 else [*ends[:4], "…", *ends[-3:]]).replace("'", "")
        raise ValueError(f"cu_seqlens: expected [n+1] positions rising from 0 to T={tokens}, got {shown}")
    return [b - a for a, b in pairwise(ends)]


def check_chunk_states(every: int | None) -> None:
    """`chunk_states` is a number of tokens, at least 1, or None."""
    if every is not None and (isinstance(every, bool) or not isinstance(every, int)):
        raise TypeError(f"chunk_states: expected a number of tokens (int) or None, got {type(every).__name__}")
    if every is not None and every < 1:
        raise ValueError(f"chunk_states: expected at least 1 token, got {every}")


def choose_backend(
    backend: str | None,
    device: torch.device,
    dtype: torch.dtype,
    needs_grad: bool,
    tokens: int,
    widest: int,
    exact: bool = False,
) -> str:
    """The backend named; for None Triton's on a CUDA device, else chunked. Triton's is "triton" or "serial".

    `tokens`: those of the longest sequence; `widest`: the larger of K and V; `exact`: an input but w is fp32. The
    serial kernel takes few tokens and heads of any size, and no gradient.
    """
    wide = widest > (WIDEST_EXACT if exact else WIDEST)
    fits = not (wide and needs_grad)
    serial = not needs_grad and (tokens <= FEW or wide)
    if backend is None:
        triton = dtype is torch.float32 and fits and triton_is_there() and device.type == "cuda" and _able(device)
        return ("serial" if serial else "triton") if triton else "chunked"
    if backend not in ("naive", "chunked", "triton"):
        raise ValueError(f'backend: expected None, "naive", "chunked" or "triton", got {backend!r}')
    if backend != "triton":
        return backend
    if not triton_is_there():
        raise ValueError('backend: "triton" needs the triton package, which is not installed; leave backend out')
    if dtype is torch.float64:
        raise TypeError('backend: expected "chunked" or "naive" for float64 inputs, got "triton"')
    if device.type != "cuda" and not _interpreted():
        raise ValueError(f'backend: expected "chunked" or "naive" for tensors on {device.type}, got "triton"')
    if not fits:
        of = " in fp32" if exact else ""
        raise ValueError(f'backend: expected "chunked" or "naive" for gradients at K or V {widest}{of}, got "triton"')
    return "serial" if serial else "triton"


def grad_needed(*inputs: Tensor) -> bool:
    """Whether autograd is recording through any of the inputs."""
    return torch.is_grad_enabled() and True in [x.requires_grad for x in inputs]


def triton_is_there() -> bool:
    """Whether the triton package is installed (it is not on macOS)."""
    return HAS_TRITON


def _able(device: torch.device) -> bool:
    """Whether a CUDA device has the tensor cores that the Triton kernels are written for: NVIDIA's, from Ampere on."""
    return torch.version.hip is None and torch.cuda.get_device_properties(device).major >= 8


def _interpreted() -> bool:
    """Whether Triton's interpreter runs the kernels: then they take tensors on the CPU."""
    from triton import knobs

    return bool(knobs.runtime.interpret)
