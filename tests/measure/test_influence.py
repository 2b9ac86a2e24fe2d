from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import rwkvlab as lab
from rwkvlab.errors import ArgError, Cancelled, MismatchError, NonFiniteError, PromptError
from rwkvlab.measure.along import along
from rwkvlab.measure.influence import RANDOMS, influence
from rwkvlab.model.random_weights import random_weights
from rwkvlab.model.replay import carried
from rwkvlab.shapes import Dims

TEXT = "how long does a mounted state last? "


@pytest.fixture(scope="module")
def six(tmp_path_factory):
    """A random RWKV-6 that reads bytes."""
    path = tmp_path_factory.mktemp("six") / "six.pth"
    torch.save(
        random_weights(Dims("x060", L=2, H=2, C=32, K=16, V=16, ffn=64, vocab=257), {"maa": 4, "decay": 4}), path
    )
    return lab.load_model(path, device="cpu", tokenizer="bytes")


@pytest.fixture(scope="module", params=["x070", "x060"])
def model(request, tiny, six):
    return {"x070": tiny, "x060": six}[request.param]


def state_of(model, seed=0, **parts):
    generator = torch.Generator().manual_seed(seed)
    return lab.State(torch.randn(2, 2, 16, 16, generator=generator), like=model, **parts).named("it")


def test_the_direct_effect_is_what_the_heads_carry(model):
    state = state_of(model)
    found = influence(model, TEXT, state)
    left = carried(model, TEXT, state, inputs_of=state, every=1)
    assert found.every == 1 and found.tokens == len(TEXT) and found.state == "it"
    assert found.direct.columns.tolist() == ["token", "layer", "head", "norm", "share", "readout"]
    for i, (layer, head) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        rows = found.direct.iloc[i::4]
        assert set(rows["layer"]) == {layer} and set(rows["head"]) == {head}
        assert rows["token"].tolist() == left.positions.tolist()
        np.testing.assert_array_equal(rows["norm"], left.norm[:, layer, head])
        np.testing.assert_allclose(rows["share"], left.norm[:, layer, head] / state.wkv[layer, head].double().norm())
        np.testing.assert_array_equal(rows["readout"], (left.readout / left.whole)[:, layer, head])
        assert rows["readout"].isna().tolist() == [True] + [False] * len(TEXT)


def test_a_half_life_is_where_less_than_half_is_left_for_good(model):
    found = influence(model, TEXT * 4, state_of(model))
    assert len(found.half_life) == 4
    for row in found.half_life.itertuples():
        part = found.direct[(found.direct["layer"] == row.layer) & (found.direct["head"] == row.head)]
        share, token = part["share"].to_numpy(), part["token"].to_numpy()
        over = token[share >= 0.5].max()
        assert row.half_life == (token[token > over].min() if over < token[-1] else np.inf)
        assert row.half_life > 0


def test_what_rises_again_is_not_yet_below_half():
    from rwkvlab.measure.influence import _half_life
    from rwkvlab.model.replay import Carried

    norm = torch.tensor([[4.0, 4, 4, 0], [1, 9, 4, 0], [2, 1, 5, 0], [1, 1, 2, 0]], dtype=torch.float64)[:, None]
    left = Carried(torch.tensor([0, 8, 16, 21]), norm, norm, norm, norm[0])
    np.testing.assert_array_equal(_half_life(left)["half_life"], [21, 16, np.inf, np.nan])


def test_the_total_effect_is_that_of_running_again_with_its_control(model):
    state = state_of(model)
    found, ids = influence(model, TEXT, state, seed=5), model.encode(TEXT)
    randoms = [lab.random_like(state, seed) for seed in range(5, 5 + RANDOMS)]
    want = along(model, ids[:1], ids[1:], [None, state, *randoms])
    assert found.total.columns.tolist() == ["token", "piece", "start", "kl", "surprise", "surprise_zero"]
    for start, rows in (("state", slice(1, 2)), ("random, same spectrum", slice(2, None))):
        part = found.total[found.total["start"] == start]
        assert part["token"].tolist() == list(range(1, len(TEXT)))
        assert "".join(part["piece"]) == TEXT[1:]
        np.testing.assert_allclose(part["kl"], want.kl[rows].mean(0))
        np.testing.assert_allclose(part["surprise"], want.surprise[rows].mean(0))
        np.testing.assert_allclose(part["surprise_zero"], want.surprise[0])
    again = influence(model, TEXT, state, seed=5)
    assert again.total.equals(found.total) and again.direct.equals(found.direct)
    assert not influence(model, TEXT, state, seed=6).total.equals(found.total)


def test_places_are_many_in_a_short_text_and_few_in_a_long_one(tiny, random_state):
    for length, every in ((2, 1), (256, 1), (257, 2), (512, 2), (513, 4), (1100, 8)):
        found = influence(tiny, [i * 7 % 257 for i in range(length)], random_state())
        assert found.every == every
        assert found.direct["token"].max() == length
    assert influence(tiny, TEXT, random_state(), every=10).direct["token"].unique().tolist() == [0, 10, 20, 30, 36]


def test_a_state_of_shifts_alone_acts_in_total_only(tiny):
    shifts = torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    found = influence(tiny, TEXT, lab.State(torch.zeros(2, 2, 16, 16), like=tiny, att_shift=shifts))
    assert found.half_life["half_life"].isna().all() and found.direct["share"].isna().all()
    assert (found.direct["readout"].dropna() == 0).all()
    assert found.total["kl"].max() > 0
    assert "all zero" in repr(found)


def test_the_state_is_left_alone_and_wrong_input_is_named(tiny, six, random_state):
    state = random_state()
    before = state.wkv.clone()
    influence(tiny, TEXT, state)
    assert torch.equal(state.wkv, before)
    for bad, error, words in (
        (None, ArgError, "need a State, got NoneType"),
        ("sort", ArgError, "need a State, got str"),
        (tiny.zero(), ArgError, "all zeros"),
        (state_of(six), MismatchError, "RWKV-6"),
        (lab.State(torch.ones(1, 2, 16, 16)), MismatchError, "L=1"),
        (state.replace(wkv=torch.full((2, 2, 16, 16), torch.nan)), NonFiniteError, "state: .* NaN"),
        (state.replace(wkv=torch.full((2, 2, 16, 16), 3e38)), NonFiniteError, "NaN"),
    ):
        with pytest.raises(error, match=words):
            influence(tiny, TEXT, bad)
    for text in ("", "a", [3]):
        with pytest.raises(PromptError, match="two tokens"):
            influence(tiny, text, state)
    for options in ({"every": 0}, {"every": 2000}, {"every": 1.5}, {"seed": -1}, {"seed": None}):
        with pytest.raises(ArgError, match=r"every|seed"):
            influence(tiny, TEXT, state, **options)


def test_a_tuned_state_moves_the_model_more_than_a_random_one():
    model, shelf = lab.bundled("micro")
    found = influence(model, "qwert>trewq\nasdfgh>", shelf["reverse"])
    kl = found.total.groupby("start")["kl"].mean()
    assert kl["state"] > 5 * kl["random, same spectrum"]


def test_a_long_text_takes_a_few_seconds():
    from time import perf_counter

    model, shelf = lab.bundled("micro")
    begin = perf_counter()
    found = influence(model, [1 + i * 7 % 250 for i in range(4096)], shelf["sort"])
    assert perf_counter() - begin < 20  # 1 s on an idle core
    assert found.every == 16 and len(found.direct) == 257 * 8


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_on_a_gpu_it_says_the_same():
    folder = Path(lab.__file__).parent / "bundled" / "micro"
    _, shelf = lab.bundled("micro")
    cpu, gpu = (
        lab.load_model(folder / "micro.pth", device=device, tokenizer=folder / "vocab.txt")
        for device in ("cpu", "cuda")
    )
    want, got = (influence(model, "qwert>ertwq" * 40, shelf["sort"]) for model in (cpu, gpu))
    assert got.gone == want.gone
    np.testing.assert_allclose(got.direct["share"], want.direct["share"], rtol=1e-2)
    np.testing.assert_allclose(got.total["kl"], want.total["kl"], rtol=1e-2, atol=1e-4)


def test_a_reading_that_is_watched_tells_how_far_it_is_and_ends_when_told(model):
    seen = []
    found = influence(model, TEXT, state_of(model), tick=lambda done, total: seen.append(done / total))
    assert seen == sorted(seen) and 0 < seen[0] < 0.34 and seen[-1] == pytest.approx(1)
    assert len(seen) > RANDOMS + model.dims.L
    pd.testing.assert_frame_equal(found.half_life, influence(model, TEXT, state_of(model)).half_life)

    def stop(done, total):
        if done / total > 0.5:
            raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        influence(model, TEXT, state_of(model), tick=stop)


def test_a_list_of_texts_is_refused(tiny, random_state):
    with pytest.raises(PromptError, match="text: need one text"):
        influence(tiny, ["ab", "cd"], random_state())
