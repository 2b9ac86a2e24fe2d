"""The Triton WKV kernels on this machine's GPU: the error against float64 first, and only then the time beside it.

Run `python kernels/benchmarks/gpu_wkv.py`. Errors are relative RMS against the naive operator in float64 on the same
rounded inputs. A time is printed where its errors are within their bounds; the status is 1 where one is not. The floor
is the time to move every tensor once at the bandwidth of a device copy, measured here.
"""

import sys
from collections.abc import Callable

import torch
import triton
from torch import Tensor
from torch.nn.functional import normalize
from triton.testing import do_bench
from wkv.wkv6.naive import wkv6_naive
from wkv.wkv6.triton_serial import wkv6_serial
from wkv.wkv6.triton_step import wkv6_step_triton
from wkv.wkv7.naive import wkv7_naive
from wkv.wkv7.triton_serial import wkv7_serial
from wkv.wkv7.triton_step import wkv7_step_triton

FORWARD = {"wkv7": wkv7_serial, "wkv6": wkv6_serial}
STEP = {"wkv7": wkv7_step_triton, "wkv6": wkv6_step_triton}
NAIVE = {"wkv7": wkv7_naive, "wkv6": wkv6_naive}
OUTPUT = {torch.float32: 1e-5, torch.float16: 5e-4, torch.bfloat16: 2.5e-3}
STATE = 1e-5
SHAPES = [(8, 4096, 32), (1, 16384, 32), (8, 1024, 12), (1, 4096, 64), (1, 4096, 32), (64, 16, 32)]
BATCHES = [(512, 32), (64, 64), (64, 32), (1, 32)]


def draw(
    name: str, B: int, T: int, H: int, K: int, V: int, dtype: torch.dtype, starts: int | None = None
) -> list[Tensor]:
    """Random inputs in the range of the models' own, rounded to `dtype`, and a start of RMS 1."""
    r, k, x, z, gate = (torch.randn(B, T, H, K, device="cuda") for _ in range(5))
    v, s0 = torch.randn(B, T, H, V, device="cuda"), torch.randn(starts or B, H, V, K, device="cuda")
    kk = normalize(x, dim=-1)
    if name == "wkv7":
        rest = [r, -0.606531 * gate.sigmoid(), k, v, -kk, kk * z.sigmoid()]
    else:
        rest = [r, -(gate - 2).exp(), k, v, torch.randn(H, K, device="cuda")]
    return [*(x.to(dtype) for x in rest), s0]


def error(x: Tensor, want: Tensor) -> float:
    """Relative RMS; NaN where anything is NaN."""
    return ((x.double() - want).norm() / want.norm()).item()


def within(y: float, s: float, dtype: torch.dtype) -> bool:
    """Whether the errors of output and state are in their bounds (NaN never is)."""
    return y <= OUTPUT[dtype] and s <= STATE


def check_forward(
    name: str, inputs: list[Tensor], cu: list[int] | None = None, every: int | None = None
) -> tuple[float, float]:
    """The errors of y and of the states (final and kept); a packed batch is compared sequence by sequence."""
    cu_seqlens = None if cu is None else torch.tensor(cu, device="cuda")
    y, s, chunks = FORWARD[name](*inputs, cu_seqlens=cu_seqlens, chunk_states=every)
    *rest, s0 = (x.double() for x in inputs)
    spans = [(0, y.shape[1], s0)] if cu is None else [(*cu[n : n + 2], s0[n : n + 1]) for n in range(len(cu) - 1)]
    ys, ends, kept = [], [], []
    for begin, stop, state in spans:
        for at in range(begin, stop, every or max(stop - begin, 1)):
            kept.append(state[:, None])
            piece = slice(at, min(at + (every or stop), stop))
            out, state = NAIVE[name](*(x[:, piece] if x.dim() == 4 else x for x in rest), state)
            ys.append(out)
        ends.append(state)
    errors = [error(s, torch.cat(ends))]
    if chunks is not None:
        errors.append(error(chunks, torch.cat(kept, dim=1)))
    return error(y, torch.cat(ys, dim=1)), max(errors, key=lambda e: (e != e, e))


def check_step(name: str, inputs: list[Tensor]) -> tuple[float, float]:
    """The errors of y and of the state that one step writes."""
    *rest, s = inputs
    want_y, want_s = NAIVE[name](*(x.double() for x in inputs))
    y = STEP[name](*(x[:, 0] if x.dim() == 4 else x for x in rest), s)
    return error(y, want_y[:, 0]), error(s, want_s)


def far_offsets(name: str) -> bool:
    """More than 2**31 elements a tensor: a hundred copies of a small batch must all give that batch's own bits."""
    small = draw(name, 41, 256, 128, 16, 16, torch.bfloat16)
    want = FORWARD[name](*small)
    large = [x.repeat(100, *[1] * (x.dim() - 1)) if x.shape[0] == 41 else x for x in small]
    y, s, _ = FORWARD[name](*large)
    return all(bool((x.unflatten(0, (100, 41)) == z).all()) for x, z in ((y, want[0]), (s, want[1])))


def check_all() -> bool:
    """Print one line a case that no timing covers."""
    cases = [
        ("fp32", (2, 1000, 4, 64, 64), torch.float32, None, 64),
        ("fp16", (2, 1000, 4, 64, 64), torch.float16, None, 64),
        ("bf16, K 128, V 32", (2, 65, 4, 128, 32), torch.bfloat16, None, 16),
        ("fp32, K 16, V 128", (2, 65, 4, 16, 128), torch.float32, None, 16),
        ("fp32, K 48, V 40", (2, 65, 4, 48, 40), torch.float32, None, 16),
        ("bf16, packed", (1, 700, 8, 64, 64), torch.bfloat16, [0, 1, 1, 64, 129, 700], 64),
        ("bf16, 140000 heads", (2, 7, 70_000, 16, 16), torch.bfloat16, None, 3),
    ]
    good = True
    for name in FORWARD:
        for title, shape, dtype, cu, every in cases:
            y, s = check_forward(name, draw(name, *shape, dtype, starts=cu and len(cu) - 1), cu, every)
            good &= within(y, s, dtype)
            print(f"{name}  {title:<20} y {y:.1e}  states {s:.1e}  {'ok' if within(y, s, dtype) else 'TOO LARGE'}")
        if torch.cuda.mem_get_info()[0] > 60e9:
            same = far_offsets(name)
            good &= same
            print(f"{name}  {'over 2**31 elements':<20} {'equal bits' if same else 'DIFFERS'}")
            torch.cuda.empty_cache()
    return good


def copy_bandwidth() -> float:
    """Bytes a second, read and written, of a device copy."""
    x = torch.randn(1 << 29, device="cuda")
    z = torch.empty_like(x)
    return 2 * x.nbytes / (1e-3 * do_bench(lambda: z.copy_(x), return_mode="median"))


def graph_time(call: Callable[[int], object], n: int) -> float:
    """Milliseconds a call, of n calls captured in one CUDA graph."""
    call(0)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for i in range(n):
            call(i)
    return do_bench(graph.replay, return_mode="median") / n


def report(title: str, y: float, s: float, ms: Callable[[], float], floor: float) -> bool:
    """One row of the table; `ms` is called only when the errors are within their bounds."""
    good = within(y, s, torch.bfloat16)
    if good:
        took = ms()
        print(f"{title:<34} y {y:.1e}  s {s:.1e}  {took:9.4f} ms  floor {floor:7.4f} ms  {100 * floor / took:5.1f} %")
    else:
        print(f"{title:<34} y {y:.1e}  s {s:.1e}  TOO LARGE, not timed")
    return good


def time_all(bandwidth: float) -> bool:
    """Print the forward and decode tables: bf16 inputs, fp32 state, K = V = 64."""
    good = True
    for name in FORWARD:
        for shape in SHAPES:
            inputs = draw(name, *shape, 64, 64, torch.bfloat16)
            errors = check_forward(name, inputs)
            moved = sum(x.nbytes for x in inputs) + inputs[3].nbytes + inputs[-1].nbytes

            def run(name=name, inputs=inputs) -> float:
                return do_bench(lambda: FORWARD[name](*inputs), return_mode="median")

            good &= report(f"{name} forward B,T,H {','.join(map(str, shape))}", *errors, run, 1e3 * moved / bandwidth)
        for B, H in BATCHES:
            inputs = draw(name, B, 1, H, 64, 64, torch.bfloat16)
            errors = check_step(name, inputs)
            copies = max(4, int(200e6 // inputs[-1].nbytes))  # more states than the L2 cache holds
            states = inputs[-1].expand(copies, *inputs[-1].shape).contiguous()
            rest = [x[:, 0] if x.dim() == 4 else x for x in inputs[:-1]]
            moved = 2 * inputs[-1].nbytes + sum(x.nbytes for x in rest) + rest[3].nbytes

            def run(name=name, rest=rest, states=states, copies=copies) -> float:
                return graph_time(lambda i: STEP[name](*rest, states[i]), copies)

            good &= report(f"{name} step in place B,H {B},{H}", *errors, run, 1e3 * moved / bandwidth)
    return good


def main() -> int:
    """Check, then time; 1 where an error is over its bound."""
    if not torch.cuda.is_available():
        print("gpu_wkv: needs a CUDA GPU; without one, `pytest tests/wkv` runs the kernels in Triton's interpreter")
        return 2
    torch.manual_seed(0)
    bandwidth = copy_bandwidth()
    print(f"{torch.cuda.get_device_name()}, torch {torch.__version__}, triton {triton.__version__}, ", end="")
    print(f"copy {bandwidth / 1e12:.2f} TB/s")
    good = check_all()
    return 0 if time_all(bandwidth) and good else 1


if __name__ == "__main__":
    sys.exit(main())
