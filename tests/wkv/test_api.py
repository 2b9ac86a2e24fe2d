"""The contract of wkv7, wkv6 and their decode steps: what goes in, what comes out, what is refused and how."""

import numpy as np
import pytest
import torch
from wkv import checks, wkv6, wkv6_step, wkv7, wkv7_step
from wkv.checks import choose_backend

OPERATORS = {"wkv7": (wkv7, wkv7_step), "wkv6": (wkv6, wkv6_step)}
# relative RMS of one float32 step against the float64 one
STEP = 1e-6

both_operators = pytest.mark.parametrize("name", OPERATORS)


def draw(name, B=2, T=5, H=3, K=8, V=4, dtype=torch.float32):
    g = torch.Generator().manual_seed(0)
    r, w, k, a, b = (0.3 * torch.randn(B, T, H, K, generator=g) for _ in range(5))
    v, u, s0 = (torch.randn(*shape, generator=g) for shape in ((B, T, H, V), (H, K), (B, H, V, K)))
    given = {"r": r, "w": -w.abs(), "k": k, "v": v} | ({"a": a, "b": b} if name == "wkv7" else {"u": u})
    return {key: x.to(dtype) for key, x in given.items()} | {"s0": s0}


def step_inputs(name, **shape):
    given = draw(name, T=1, **shape)
    s = given.pop("s0")
    return {key: x[:, 0] if x.dim() == 4 else x for key, x in given.items()}, s


@both_operators
@pytest.mark.parametrize("backend", [None, "naive", "chunked"])
def test_dtypes_may_be_mixed(name, backend):
    operator, _ = OPERATORS[name]
    for dtype in (torch.bfloat16, torch.float16):
        given = draw(name, dtype=dtype)
        given["w"] = given["w"].float()  # not every log decay fits 16 bits
        y, s = operator(**given, backend=backend)
        assert (y.dtype, s.dtype) == (dtype, torch.float32)
        exact_y, exact_s = operator(**{key: x.double() for key, x in given.items()}, backend="naive")
        assert torch.allclose(s.double(), exact_s, rtol=1e-5, atol=1e-5)
        assert torch.allclose(y.double(), exact_y, rtol=2**-7, atol=1e-5)
    given = draw(name)
    given["k"] = given["k"].double()
    y, s, kept = operator(**given, chunk_states=2, backend=backend)
    assert (y.dtype, s.dtype, kept.dtype) == (torch.float32, torch.float64, torch.float64)


@both_operators
@pytest.mark.parametrize("backend", ["naive", "chunked"])
def test_nothing_given_is_written_to_and_nothing_returned_is_shared(name, backend):
    operator, _ = OPERATORS[name]
    for T in (0, 5):
        given = draw(name, T=T)
        before = {key: x.clone() for key, x in given.items()}
        for x in operator(**given, chunk_states=2, backend=backend):
            x.fill_(torch.nan)
        assert all(torch.equal(given[key], before[key]) for key in given)


@both_operators
@pytest.mark.parametrize("backend", ["naive", "chunked"])
def test_no_start_is_a_start_at_zero(name, backend):
    operator, _ = OPERATORS[name]
    given = draw(name)
    zero = operator(**given | {"s0": torch.zeros_like(given["s0"])}, backend=backend)
    none = operator(**given | {"s0": None}, backend=backend)
    assert all(torch.equal(x, y) for x, y in zip(zero, none, strict=True))


@both_operators
def test_packed_positions_may_be_a_list_or_a_tensor(name):
    operator, _ = OPERATORS[name]
    given = draw(name, B=1) | {"s0": None}
    y, s = operator(**given, cu_seqlens=[0, 2, 5])
    assert s.shape[0] == 2
    for dtype in (torch.int32, torch.int64):
        again = operator(**given, cu_seqlens=torch.tensor([0, 2, 5], dtype=dtype))
        assert torch.equal(again[0], y)
        assert torch.equal(again[1], s)


@both_operators
@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"r": [1.0]}, TypeError, r"r: expected a torch tensor \[B,T,H,K\], got list"),
        ({"r": torch.zeros(5, 3, 8)}, ValueError, r"r: expected \[B, T, H, K\], got \[5, 3, 8\]"),
        ({"k": torch.zeros(2, 5, 3, 9)}, ValueError, r"k: expected \[B=2, T=5, H=3, K=8\], got \[2, 5, 3, 9\]"),
        ({"v": torch.zeros(2, 4, 3, 4)}, ValueError, r"v: expected \[B=2, T=5, H=3, V\], got \[2, 4, 3, 4\]"),
        ({"k": torch.zeros(2, 5, 3, 8, dtype=torch.int64)}, TypeError, "k: expected float32, .* got torch.int64"),
        ({"w": torch.zeros(2, 5, 3, 8, device="meta")}, ValueError, "w: expected device cpu .* got meta"),
        ({"s0": torch.zeros(2, 3, 8, 4)}, ValueError, r"s0: expected \[B=2, H=3, V=4, K=8\], got \[2, 3, 8, 4\]"),
        ({"s0": torch.zeros(2, 3, 4, 8).half()}, TypeError, r"s0: expected float32 .* got torch.float16; pass s0"),
        ({"s0": np.zeros((2, 3, 4, 8))}, TypeError, r"s0: expected a torch tensor \[B,H,V,K\], got ndarray"),
        ({"chunk_states": 0}, ValueError, "chunk_states: expected at least 1 token, got 0"),
        ({"chunk_states": True}, TypeError, "chunk_states: expected a number of tokens .* got bool"),
        ({"cu_seqlens": [0, 5]}, ValueError, "cu_seqlens: expected batch axis 1 .* got B=2"),
        ({"cu_seqlens": torch.tensor([0.0, 5.0])}, TypeError, "cu_seqlens: expected an int32 or int64 tensor"),
        ({"backend": "cuda"}, ValueError, "backend: expected None, .* got 'cuda'"),
    ],
    ids=lambda x: next(iter(x)) if isinstance(x, dict) else None,
)
def test_what_does_not_fit_is_refused_by_name(name, change, kind, message):
    with pytest.raises(kind, match=message):
        OPERATORS[name][0](**draw(name) | change)


@both_operators
@pytest.mark.parametrize("ends", [[0], [0, 4], [1, 5], [0, 4, 3, 5], list(range(9)), []])
def test_packed_positions_that_do_not_fit_are_shown(name, ends):
    with pytest.raises(ValueError, match=r"cu_seqlens: expected \[n\+1\] positions rising from 0 to T=5, got \["):
        OPERATORS[name][0](**draw(name, B=1) | {"s0": None}, cu_seqlens=ends)


def test_the_bonus_has_a_shape_too():
    with pytest.raises(ValueError, match=r"u: expected \[H=3, K=8\], got \[3, 9\]"):
        wkv6(**draw("wkv6") | {"u": torch.zeros(3, 9)})


@both_operators
def test_every_packed_sequence_wants_its_start(name):
    with pytest.raises(ValueError, match=r"s0: expected \[n=2, H=3, V=4, K=8\], got \[1, 3, 4, 8\]"):
        OPERATORS[name][0](**draw(name, B=1), cu_seqlens=[0, 2, 5])


@both_operators
def test_triton_is_refused_where_it_cannot_serve(name, monkeypatch):
    operator, _ = OPERATORS[name]
    pytest.importorskip("triton")
    given = draw(name)
    with pytest.raises(TypeError, match=r"backend: .* for float64 inputs"):
        operator(**given | {"k": given["k"].double()}, backend="triton")
    wide = draw(name, B=1, T=1, H=1, K=136)
    wide["s0"].requires_grad_()
    with pytest.raises(ValueError, match=r"backend: .* for gradients at K or V 136"):
        operator(**wide, backend="triton")
    with pytest.raises(ValueError, match=r"backend: .* for gradients at K or V 65 in fp32"):
        operator(**{k: x.requires_grad_() for k, x in draw(name, B=1, T=1, H=1, K=65).items()}, backend="triton")
    assert operator(**wide)[1].requires_grad
    if not torch.cuda.is_available():
        monkeypatch.setattr("triton.knobs.runtime.interpret", False)
        with pytest.raises(ValueError, match=r"backend: .* on cpu"):
            operator(**given, backend="triton")


def test_the_backend_is_chosen_by_what_serves(monkeypatch):
    monkeypatch.setattr(checks, "HAS_TRITON", True)
    monkeypatch.setattr(checks, "_able", lambda device: device.index == 0)
    gpu, old, cpu = (torch.device(x) for x in ("cuda:0", "cuda:1", "cpu"))
    few = checks.FEW
    for device, dtype, needs_grad, tokens, widest, want in (
        (gpu, torch.float32, True, 1, 64, "triton"),
        (gpu, torch.float32, True, 1000, 128, "triton"),
        (gpu, torch.float32, True, 1000, 129, "chunked"),
        (gpu, torch.float32, False, 1000, 129, "serial"),
        (gpu, torch.float32, False, few, 64, "serial"),
        (gpu, torch.float32, False, few + 1, 64, "triton"),
        (gpu, torch.float64, False, 1, 64, "chunked"),
        (old, torch.float32, False, 1000, 64, "chunked"),
        (cpu, torch.float32, False, 1000, 64, "chunked"),
    ):
        assert choose_backend(None, device, dtype, needs_grad, tokens, widest) == want
    for needs_grad, widest, want in ((True, 64, "triton"), (True, 65, "chunked"), (False, 65, "serial")):
        assert choose_backend(None, gpu, torch.float32, needs_grad, 1000, widest, exact=True) == want
    monkeypatch.setattr(checks, "HAS_TRITON", False)
    assert choose_backend(None, gpu, torch.float32, False, 1000, 64) == "chunked"
    with pytest.raises(ValueError, match=r'backend: "triton" needs the triton package'):
        choose_backend("triton", gpu, torch.float32, False, 1000, 64)


@both_operators
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_step_is_one_token_in_place(name, dtype):
    operator, step = OPERATORS[name]
    given, s = step_inputs(name, K=16, V=8, dtype=dtype)
    timed = {key: x if key == "u" else x[:, None] for key, x in given.items()}
    want_y, want_s = operator(**{key: x.double() for key, x in timed.items()}, s0=s.double(), backend="naive")
    home = s.data_ptr()
    y = step(**given, s=s)
    assert (y.dtype, s.data_ptr()) == (dtype, home)
    assert float((s - want_s).norm() / want_s.norm()) <= STEP
    bound = STEP if dtype is torch.float32 else 2**-8
    assert float((y - want_y[:, 0]).norm() / want_y.norm()) <= bound


@both_operators
def test_a_step_wants_a_state_that_fits(name):
    given, s = step_inputs(name)
    for wrong in (s.mT.contiguous(), s.half(), s[:1]):
        with pytest.raises(ValueError, match=r"s: expected float32 or float64 \[B,H,V,K\]=\[2, 3, 4, 8\], got"):
            OPERATORS[name][1](**given, s=wrong)
