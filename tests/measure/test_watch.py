import numpy as np
import pytest
import torch

import rwkvlab as lab
import rwkvlab.measure.watch as module
from rwkvlab.errors import ArgError, MismatchError, NonFiniteError
from rwkvlab.measure.watch import over_time, trajectory
from rwkvlab.model.random_weights import random_weights
from rwkvlab.model.trace import Trace
from rwkvlab.shapes import Dims


@pytest.fixture
def traces(tiny, random_state):
    texts = {"one": "a first text", "two": "the second is longer than it"}
    return {name: tiny.trace(text, random_state(seed=i), every=3) for i, (name, text) in enumerate(texts.items())}


def vectors(traces):
    return torch.cat([trace["state"].flatten(1) for trace in traces.values()]).double().numpy()


def test_the_path_is_that_of_a_plain_pca_over_all_texts(traces):
    table = trajectory(traces, components=3)
    points = vectors(traces)
    centred = points - points.mean(axis=0)
    _, sigma, axes = np.linalg.svd(centred, full_matrices=False)
    for i in range(3):
        want, got = centred @ axes[i], table[f"pc{i + 1}"].to_numpy()
        assert np.abs(got).max() == got.max()  # the largest entry is positive
        np.testing.assert_allclose(got, want * np.sign(want[np.abs(want).argmax()]), rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(table.attrs["explained"], sigma[:3] ** 2 / (sigma**2).sum(), rtol=1e-9)
    assert table.columns.tolist() == ["text", "token", "pc1", "pc2", "pc3"]
    for name, trace in traces.items():
        assert table.loc[table["text"] == name, "token"].tolist() == trace.positions.tolist()


def test_two_points_lie_on_one_line_and_a_planted_path_is_found(tiny):
    trace = tiny.trace("a", every=1)
    table = trajectory(trace)
    assert table.attrs["explained"] == pytest.approx((1, 0))
    assert table["text"].tolist() == ["text 1"] * 2
    apart = float(trace.final.wkv.norm())  # from zeros
    assert abs(table["pc1"][1] - table["pc1"][0]) == pytest.approx(apart, rel=1e-6)
    assert trajectory([trace, trace])["text"].tolist() == ["text 1"] * 2 + ["text 2"] * 2


def made(states, heads=None):
    n = len(states)
    return Trace(list(range(n - 1)), torch.arange(n), heads, {"state": states}, lab.State(states[-1]))


def test_states_that_stand_still_explain_nothing():
    still = made(torch.ones(4, 1, 2, 3, 3))
    table = trajectory(still)
    assert not table[["pc1", "pc2"]].to_numpy().any()
    assert np.isnan(table.attrs["explained"]).all()


def test_norm_and_rank_over_time_are_those_of_each_matrix(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    states = torch.randn(5, 2, 3, 4, 6, generator=generator)  # V != K
    states[0] = 0
    states[1, 0, 0] = torch.outer(torch.arange(1.0, 5), torch.arange(1.0, 7))  # rank 1
    states[2, 1, 2] = 7 * torch.eye(4, 6) * 1e-30  # rank 4, and tiny
    trace = Trace(
        list(range(4)), torch.tensor([0, 8, 16, 24, 30]), None, {"state": states}, lab.State(states[-1, :, :, :4, :4])
    )
    whole = over_time(trace)
    monkeypatch.setattr(module, "NUMBERS", 1)
    assert over_time(trace).equals(whole)
    assert whole.columns.tolist() == ["token", "layer", "head", "norm", "effective_rank"]
    assert whole["token"].unique().tolist() == [0, 8, 16, 24, 30] and len(whole) == 5 * 6
    sigma = torch.linalg.svdvals(states.double())
    share = sigma / sigma.sum(-1, keepdim=True)
    want = torch.special.entr(share).sum(-1).exp().nan_to_num(0).flatten().numpy()
    np.testing.assert_allclose(whole["effective_rank"], want, rtol=1e-4)
    np.testing.assert_allclose(whole["norm"], sigma.square().sum(-1).sqrt().flatten(), rtol=1e-6)
    assert (whole[["effective_rank", "norm"]][:6] == 0).all(axis=None)
    row = whole[(whole["token"] == 16) & (whole["layer"] == 1) & (whole["head"] == 2)].iloc[0]
    assert row["effective_rank"] == pytest.approx(4) and row["norm"] == pytest.approx(14e-30)
    tall = made(states.mT)
    np.testing.assert_allclose(over_time(tall)["effective_rank"], want, rtol=1e-4)


def test_chosen_heads_keep_their_order_and_their_names(tiny, random_state):
    pairs = [(1, 1), (0, 0)]
    some, whole = (over_time(tiny.trace("abcdef", random_state(), every=2, heads=heads)) for heads in (pairs, None))
    assert list(zip(some["layer"], some["head"], strict=True))[:2] == pairs
    both = some.merge(whole, on=["token", "layer", "head"])
    assert len(both) == len(some) == 8 and (both["norm_x"] == both["norm_y"]).all()
    paths = [trajectory(tiny.trace("abcdef", every=2, heads=[pair])) for pair in pairs]
    assert not np.allclose(paths[0]["pc1"], paths[1]["pc1"])


def test_what_cannot_be_watched_is_named(tiny, random_state, monkeypatch, tmp_path):
    trace = tiny.trace("abc", every=1)
    for bad in (None, 5, "abc", [], {}, [trace, None], {"\x1b[31m": 3}):
        with pytest.raises(ArgError, match="traces") as error:
            trajectory(bad)
        assert "\x1b" not in str(error.value)
    with pytest.raises(ArgError, match="need a Trace"):
        over_time([trace])
    for function in (trajectory, over_time):
        with pytest.raises(ArgError, match="'state' was not kept"):
            function(tiny.trace("abc", keep=("v",)))
        broken = made(torch.full((3, 1, 2, 3, 3), torch.nan))
        with pytest.raises(NonFiniteError):
            function(broken)
    for components in (0, 5, 1.5):
        with pytest.raises(ArgError, match="components"):
            trajectory(trace, components)
    one, other = (tiny.trace("abc", every=1, heads=[pair]) for pair in ((0, 0), (1, 0)))
    for pair in ([trace, one], [one, other]):
        with pytest.raises(MismatchError, match="other heads"):
            trajectory(pair)
    dims = Dims("x060", L=2, H=2, C=32, K=16, V=16, ffn=64, vocab=257)
    torch.save(random_weights(dims, {"maa": 4, "decay": 4}), tmp_path / "a.pth")
    with pytest.raises(MismatchError, match="different models"):
        trajectory([trace, lab.load_model(tmp_path / "a.pth", device="cpu").trace("abc", every=1)])
    monkeypatch.setattr(module, "MOST", 3)
    with pytest.raises(ArgError, match="larger every"):
        trajectory(trace)
