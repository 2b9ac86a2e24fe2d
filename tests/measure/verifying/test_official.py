"""The comparison with PyPI's `rwkv`, which runs in processes of its own here as it does for users."""

import importlib.util
import os
import sys
from types import SimpleNamespace

import pytest
import torch

import rwkvlab as lab
from rwkvlab.measure.verifying import official
from rwkvlab.measure.verifying.official import compare_logits
from rwkvlab.measure.verifying.official_ours import compared, our_logits, way_of
from rwkvlab.model.random_weights import random_weights
from rwkvlab.shapes import Dims
from rwkvlab.tensorfile import write_safetensors

RANKS = {
    "x070": {"w": 9, "a": 7, "v": 5, "g": 11},
    "x060": {"maa": 6, "decay": 9},
    "x052": {},
}
TOKENS = [5, 9, 0, 33, 12, 12, 7, 49, 3, 21, 8, 40]


@pytest.fixture
def random_file(tmp_path):
    """random_file(arch, …) -> the path of a random checkpoint in a folder whose name is nobody's business."""

    def make(arch="x070", name="model 随机.pth", dtype=torch.float32, **changes):
        dims = Dims(arch, L=2, H=3, C=48, K=16, V=16, ffn=176, vocab=50)
        weights = {key: value.to(dtype) for key, value in random_weights(dims, RANKS[arch]).items()}
        path = tmp_path / "secret" / name
        path.parent.mkdir(exist_ok=True)
        torch.save(weights | {key: change(weights[key]) for key, change in changes.items()}, path)
        return path

    return make


def a_state(model):
    dims, generator = model.dims, torch.Generator().manual_seed(3)
    parts = [(dims.L, dims.H, dims.V, dims.K), (dims.L, dims.C), (dims.L, dims.C)]
    wkv, att, ffn = (torch.randn(*shape, generator=generator) for shape in parts)
    return lab.State(wkv, like=model, att_shift=att, ffn_shift=ffn)


@pytest.mark.parametrize("arch", list(RANKS))
def test_equal_weights_agree_from_zeros_and_from_a_state(arch, random_file):
    path = random_file(arch, dtype=torch.float32 if arch == "x070" else torch.bfloat16)
    model, before = lab.load_model(path, device="cpu", dtype="fp32"), dict(os.environ)
    check = compare_logits(model, path, TOKENS, {"zeros": None, "the state": a_state(model)})
    assert check.agrees, check.sentence
    assert check.table["start"].tolist() == ["zeros", "the state"]
    assert (check.table["largest"] < 1e-4).all() and (check.table["same_top"] == 1).all()
    assert check.sentence.startswith(f"logits: agree with those of rwkv {official.installed()} in fp32, ")
    assert dict(os.environ) == before and "rwkv.model" not in sys.modules


def test_a_model_in_16_bits_is_compared_exactly_too_and_one_wrong_weight_is_found(random_file):
    path = random_file(dtype=torch.bfloat16)
    model = lab.load_model(path, device="cpu")
    wrong = random_file(name="wrong.pth", dtype=torch.bfloat16, **{"blocks.1.att.r_k": torch.zeros_like})
    right = [lab.load_model(path, device="cpu", dtype="fp32").forward(TOKENS).logits[0]]
    planted = official.official_logits(wrong, model, TOKENS, [None])
    checks = []
    for answer in (right, planted):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(official, "official_logits", lambda *_, answer=answer: answer)
            checks.append(compare_logits(model, path, TOKENS, {"zeros": None}))
    good, bad = checks
    assert good.table["ours"].tolist() == bad.table["ours"].tolist() == ["bf16 on cpu", "fp32 on cpu"]
    assert good.agrees and good.table["largest"].tolist()[1] < 1e-4 < good.table["largest"].tolist()[0]
    assert bad.agrees is False and "DIFFER" in bad.sentence and not bad.table["agrees"].tolist()[1]


def test_only_what_runs_here_may_be_wrong(random_file, monkeypatch):
    path = random_file()
    exact = lab.load_model(path, device="cpu")
    right = [exact.forward(TOKENS).logits[0]]
    broken = lab.load_model(path, device="cpu", dtype="bf16")
    broken._weights.head.copy_(broken._weights.head.roll(1, 0))
    monkeypatch.setattr(official, "official_logits", lambda *_: right)
    check = compare_logits(broken, path, TOKENS, {"zeros": None})
    assert check.agrees is False and check.table["agrees"].tolist() == [False, True]
    assert "agree with" in check.sentence and "but bf16 on cpu, as it runs here" in check.sentence


def test_a_checkpoint_with_a_state_merged_in_starts_from_zeros_all_the_same(random_file):
    path = random_file("x060", **{"emb.weight": lambda weight: weight})
    weights = torch.load(path)
    torch.save(weights | {f"blocks.{i}.att.time_state": torch.ones(3, 16, 16) for i in range(2)}, path)
    with pytest.warns(UserWarning, match="not mounted"):
        model = lab.load_model(path, device="cpu")
    assert compare_logits(model, path, TOKENS, {"zeros": None}).agrees


def reason(check):
    assert check.agrees is None and not len(check.table)
    assert check.sentence.startswith("logits: not compared: ")
    return check.sentence


def test_without_the_package_it_says_so(random_file, monkeypatch):
    path = random_file()
    model = lab.load_model(path, device="cpu")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert official.installed() == ""
    assert "`pip install rwkv`" in reason(compare_logits(model, path, TOKENS, {"zeros": None}))


def test_what_cannot_be_compared_is_said_before_anything_is_started(random_file, tmp_path, monkeypatch):
    path = random_file()
    model = lab.load_model(path, device="cpu")
    monkeypatch.setattr(official.subprocess, "run", lambda *_, **__: pytest.fail("started"))
    starts = {"zeros": None}
    assert "path of the .pth" in reason(compare_logits(model, None, TOKENS, starts))
    other = write_safetensors(tmp_path / "model.safetensors", dict(torch.load(path)), {})
    assert ".pth files only" in reason(compare_logits(model, other, TOKENS, starts))
    assert ".pth files only" in reason(compare_logits(model, tmp_path, TOKENS, starts))
    monkeypatch.setattr(official, "_free_memory", lambda: 2**28)
    assert "0.2 GiB are free" in reason(compare_logits(model, path, TOKENS, starts))


def test_failures_of_the_package_become_sentences_without_folders(random_file, monkeypatch, tmp_path):
    path = random_file()
    model = lab.load_model(path, device="cpu")
    starts = {"zeros": None}
    other = random_file("x060", name="older.pth")  # the package for RWKV-7 cannot run it
    said = reason(compare_logits(model, other, TOKENS, starts))
    assert "the official package failed; it said 'KeyError" in said and "secret" not in said
    run = official.subprocess.run
    monkeypatch.setattr(official, "TIMEOUT", 0.01)
    monkeypatch.setattr(official.subprocess, "run", lambda *a, **k: run(*a, **(k | {"timeout": 0.01})))
    assert "longer than" in reason(compare_logits(model, path, TOKENS, starts))
    killed = [sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"]
    monkeypatch.setattr(official.subprocess, "run", lambda a, **k: run(killed, **k))
    assert "signal 9" in reason(compare_logits(model, path, TOKENS, starts))
    told = [sys.executable, "-c", f"raise SystemExit('no module in {tmp_path}/secret/x.py')"]
    monkeypatch.setattr(official.subprocess, "run", lambda a, **k: run(told, **k))
    assert reason(compare_logits(model, path, TOKENS, starts)).endswith("it said 'no module in x.py'")
    monkeypatch.setattr(official.subprocess, "run", lambda a, **k: run([sys.executable, "-c", ""], **k))
    assert "left no logits" in reason(compare_logits(model, path, TOKENS, starts))


def test_what_goes_wrong_before_the_package_starts_is_a_sentence_too(random_file, tmp_path, monkeypatch):
    path, starts = random_file(), {"zeros": None}
    model = lab.load_model(path, device="cpu")
    said = reason(compare_logits(model, tmp_path / "secret" / "gone.pth", TOKENS, starts))
    assert "'gone.pth': no such file" in said and "secret" not in said
    (tmp_path / "broken.pth").write_bytes(b"PK no archive")
    reason(compare_logits(model, tmp_path / "broken.pth", TOKENS, starts))
    for error in (OSError(5, "Input/output error", f"{tmp_path}/x.pth"), MemoryError(), RuntimeError("can't allocate")):

        def fail(*_, error=error):
            raise error

        monkeypatch.setattr(official, "_obstacle", fail)
        said = reason(compare_logits(model, path, TOKENS, starts))
        assert type(error).__name__ in said and str(tmp_path) not in said


def test_rounded_products_of_fp32_are_not_called_wrong(random_file, monkeypatch):
    model = lab.load_model(random_file(), device="cpu")
    forward, seen = type(model).forward, []

    def spied(self, *given, **named):
        seen.append(torch.get_float32_matmul_precision())
        return forward(self, *given, **named)

    monkeypatch.setattr(type(model), "forward", spied)
    before = torch.get_float32_matmul_precision()
    elsewhere = SimpleNamespace(dtype=torch.float32, device=torch.device("cuda"))
    try:
        assert way_of(elsewhere) == "fp32 on cuda"
        torch.set_float32_matmul_precision("high")
        assert way_of(elsewhere) == "tf32 on cuda" and way_of(model) == "fp32 on cpu"
        our_logits(model, TOKENS, {"zeros": None})
        assert seen == ["highest"] and torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
    want = torch.randn(12, 50, generator=torch.Generator().manual_seed(0))
    rounded = want + 0.01 * want.flip(0)
    assert (
        compared("zeros", "tf32 on cuda", rounded, want)[-1]
        and not compared("zeros", "fp32 on cuda", rounded, want)[-1]
    )
