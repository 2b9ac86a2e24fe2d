import numpy as np
import pytest
import torch
import torch.nn.functional as F

import rwkvlab as lab
from rwkvlab.errors import ArgError, MismatchError, NonFiniteError, PromptError
from rwkvlab.measure.along import along
from rwkvlab.measure.writes import as_they_stand, broken_at, writes
from rwkvlab.model.random_weights import random_weights
from rwkvlab.model.trace import Trace
from rwkvlab.shapes import Dims

ARCHS = ("x070", "x060", "x052")
RANKS = {"w": 4, "a": 4, "v": 4, "g": 4, "maa": 4, "decay": 4}
TEXT = "one token of these writes nearly all"


def weights_of(arch):
    return random_weights(Dims(arch, L=2, H=2, C=32, K=16, V=16, ffn=64, vocab=257), RANKS)


@pytest.fixture(params=ARCHS)
def model(request, tmp_path):
    torch.save(weights_of(request.param), tmp_path / "a.pth")
    return lab.load_model(tmp_path / "a.pth", device="cpu")


def some_state(model, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return lab.State(torch.randn(2, 2, 16, 16, generator=generator), like=model)


@pytest.mark.parametrize("text", ["a", TEXT, TEXT * 30])
def test_the_writes_and_the_start_sum_to_the_final_state(model, text):
    start = some_state(model)
    for layer, head in ((0, 1), (1, 0)):
        names = ("w", "k", "v", *(("a", "b") if model.dims.arch == "x070" else ()))
        trace = model.trace(text, start, heads=[(layer, head)], keep=names)
        first, keys = as_they_stand(trace, start.wkv[layer, head])
        want = trace.final.wkv[layer, head].double()
        made = first + trace["v"][0].double().mT @ keys
        assert float((made - want).norm() / want.norm()) < 1e-6
        table = writes(model, text, start, layer=layer, head=head)
        assert table["share"].sum() == pytest.approx(1, abs=1e-9)
        for token in (-1, 0, len(trace.tokens) - 1):
            row = table[table["token"] == token].iloc[0]
            one = first if token < 0 else torch.outer(trace["v"][0, token].double(), keys[token])
            assert row["norm"] == pytest.approx(float(one.norm()), rel=1e-9)
            assert row["share"] == pytest.approx(float((one * want).sum() / want.square().sum()), rel=1e-4, abs=1e-6)


def test_a_token_by_itself_leaves_what_the_rest_of_the_text_lets_stand(model):
    """The last token's write is v k^T as it was made; the one before it went through one transition."""
    names = ("w", "k", "v", *(("a", "b") if model.dims.arch == "x070" else ()))
    trace = model.trace("abc", None, heads=[(1, 1)], keep=names)
    _, keys = as_they_stand(trace, torch.zeros(16, 16))
    w, k = trace["w"][0].double().exp(), trace["k"][0].double()
    step = torch.diag(w[2])
    if "a" in trace.kept:
        step = step + torch.outer(trace["a"][0, 2].double(), trace["b"][0, 2].double())
    assert torch.equal(keys[2], k[2])
    assert torch.allclose(keys[1], k[1] @ step, rtol=1e-12)


def planted(arch, path):
    """A model whose layer 0 takes its values from one direction, which of this text's tokens only "z" has."""
    weights = weights_of(arch)
    normed = F.layer_norm(weights["emb.weight"], (32,), weights["blocks.0.ln0.weight"], weights["blocks.0.ln0.bias"])
    seen = F.layer_norm(normed, (32,), weights["blocks.0.ln1.weight"], weights["blocks.0.ln1.bias"])
    tokens = sorted({*b"abcdefgz"})
    wanted = torch.tensor([100.0 if token == ord("z") else 0.3 for token in tokens])
    direction = torch.linalg.lstsq(seen[[token + 1 for token in tokens]], wanted[:, None]).solution[:, 0]
    weights["blocks.0.att.value.weight"] = torch.outer(torch.linspace(0.5, 1.5, 32), direction)
    for name in ("x_v", "time_maa_v", "time_maa_w2"):  # the value of a token is not mixed with the one before
        if f"blocks.0.att.{name}" in weights:
            weights[f"blocks.0.att.{name}"].zero_()
    torch.save(weights, path)
    return lab.load_model(path, device="cpu")


@pytest.mark.parametrize("arch", ["x070", "x060"])
def test_the_token_that_wrote_nearly_everything_comes_first(arch, tmp_path):
    model = planted(arch, tmp_path / "a.pth")
    table = writes(model, "abczdefgab", layer=0, head=1)
    assert table.columns.tolist() == ["rank", "token", "piece", "norm", "share", "surprise"]
    assert table["rank"].tolist() == list(range(1, 12))
    first = table.iloc[0]
    assert (first["token"], first["piece"]) == (3, "z") and first["share"] > 0.9
    assert table["share"].abs().is_monotonic_decreasing
    assert writes(model, "abczdefgab", layer=0, head=1, top=2).equals(table.head(2))


def test_beside_each_token_stands_how_unexpected_it_was(tiny, random_state):
    start = random_state()
    table = writes(tiny, "abcab", start, layer=1, head=0).set_index("token").sort_index()
    assert table["piece"].tolist() == ["the initial state", *"abcab"]
    assert table["surprise"].isna().tolist() == [True, True, False, False, False, False]
    ids = tiny.encode("abcab")
    np.testing.assert_allclose(table["surprise"][2:], along(tiny, ids[:1], ids[1:], [start]).surprise[0])
    alone = writes(tiny, "a", layer=0, head=0)
    assert alone["surprise"].isna().all() and alone["token"].tolist() == [0, -1]
    assert alone["share"].tolist() == pytest.approx([1, 0])


def test_wrong_input_is_named(tiny, random_state, model):
    for options in ({"layer": 2, "head": 0}, {"layer": 0, "head": -1}, {"layer": 0, "head": 0, "top": 0}):
        with pytest.raises(ArgError, match=r"layer|head|top"):
            writes(tiny, "abc", **options)
    with pytest.raises(PromptError, match="empty"):
        writes(tiny, "", layer=0, head=0)
    with pytest.raises(ArgError, match="state: need a State or None, got str"):
        writes(tiny, "abc", "sort", layer=0, head=0)
    small = lab.State(torch.ones(1, 2, 16, 16))
    with pytest.raises(MismatchError):
        writes(tiny, "abc", small, layer=0, head=0)
    broken = random_state().replace(wkv=torch.full((2, 2, 16, 16), torch.nan))
    for text in ("a", "abc"):
        with pytest.raises(NonFiniteError, match=r"NaN or infinity at the start; .*grown without bound"):
            writes(tiny, text, broken, layer=0, head=0)


def test_where_a_head_breaks_the_first_token_after_which_it_is_so_is_named(model):
    model._weights.emb[7] = torch.nan  # a file with it would not load
    with pytest.raises(NonFiniteError, match=r"writes: .* from about token 2 \(from 0\) on; "):
        writes(model, [3, 4, 7, 5], some_state(model), layer=0, head=1)


@pytest.mark.parametrize("arch", ["x070", "x060"])
def test_a_head_that_grows_without_bound_breaks_where_its_numbers_end(arch):
    """It doubles with each token, from 1e100: its square is beyond float64 after token 179."""
    tokens = 300
    kept = {name: torch.zeros(1, tokens, 2) for name in "wkv"}
    if arch == "x070":  # diag(1) + a b^T
        kept |= {name: torch.tensor([1.0, 0.0]).expand(1, tokens, 2) for name in "ab"}
    else:
        kept["w"] += np.log(2)
    start = torch.zeros(2, 2, dtype=torch.float64)
    start[0, 0] = 1e100
    trace = Trace([0] * tokens, torch.tensor([tokens]), [(0, 0)], kept, lab.State(torch.zeros(1, 1, 2, 2)))
    assert broken_at(trace, start) == 179
