"""readout_distance counts what the receptances of a text ask for, exactly, on any architecture."""

import math

import numpy as np
import pytest
import torch

import rwkvlab as lab
from rwkvlab.errors import ArgError, MismatchError, PromptError
from rwkvlab.measure.readout import PIECE, Moments, readout_distance, receptance_moments
from rwkvlab.model.engine import load_model
from rwkvlab.model.random_weights import random_weights
from rwkvlab.model.replay import replay
from rwkvlab.shapes import Dims
from rwkvlab.states.state import State
from rwkvlab.tasks.task import Task

TEXT = "Eleven ships before noon; each name was written down."


def model_of(arch, folder):
    dims = Dims(arch, L=2, H=2, C=32, K=16, V=16, ffn=64, vocab=257)
    ranks = {"w": 4, "a": 4, "v": 4, "g": 4, "maa": 4, "decay": 4}
    torch.save(random_weights(dims, ranks), folder / f"{arch}.pth")
    return load_model(folder / f"{arch}.pth", tokenizer="bytes")


def added(model, state, texts):
    """What a state adds to each token's read-out, by the kernels themselves, a token at a time: [L,T,H,V]."""
    names = ("r", "w", "k", "v", *(("a", "b") if model.dims.arch == "x070" else ("u",)))
    rows = []
    for text in texts:
        trace = model.trace(text, keep=names)
        layers = []
        for layer, wkv in enumerate(state.wkv.double()):
            fed = {name: trace[name][layer] if name == "u" else trace[name][layer][:, None] for name in names}
            start = wkv.expand(len(trace.tokens), -1, -1, -1)
            from_it, from_zero = (replay(fed, one)[0][:, 0] for one in (start, torch.zeros_like(start)))
            layers.append(from_it - from_zero)
        rows.append(torch.stack(layers))
    return torch.cat(rows, dim=1)


def slow(model, a, b, texts):
    """The definition: root mean squares and cosine, [L,H]."""
    y_a, y_b = added(model, a, texts), added(model, b, texts)
    apart = (y_b - y_a).square().sum(-1).mean(1).sqrt()
    size = [y.square().sum(-1).mean(1).sqrt() for y in (y_a, y_b)]
    return apart, apart / size[0], (y_a * y_b).sum(-1).mean(1) / size[0] / size[1]


@pytest.mark.parametrize("arch", ["x052", "x060", "x070"])
def test_on_one_token_it_is_the_difference_of_two_runs(arch, tmp_path):
    """Of the whole model, from a and from b; layer 0, whose inputs no state changes."""
    model = model_of(arch, tmp_path)
    generator = torch.Generator().manual_seed(0)
    a, b = (State(torch.randn(2, 2, 16, 16, generator=generator), like=model) for _ in "ab")
    y_a, y_b = (model.trace([70], state, keep=("y",))["y"][0, 0] for state in (a, b))  # [H,V]
    table = readout_distance(model, a, b, [[70]])
    assert table["readout"][:2].to_numpy() == pytest.approx((y_b - y_a).norm(dim=-1).numpy(), rel=1e-4)


@pytest.mark.parametrize("arch", ["x052", "x060", "x070"])
def test_it_is_the_mean_over_all_tokens_of_what_is_read(arch, tmp_path):
    model = model_of(arch, tmp_path)
    generator = torch.Generator().manual_seed(0)
    a, b = (State(torch.randn(2, 2, 16, 16, generator=generator), like=model) for _ in "ab")
    texts = [TEXT, "x", "Aurora " * 60]  # one of more than a piece
    assert len(model.encode(texts[2])) > PIECE
    table = readout_distance(model, a, b, texts)
    assert [*table.columns] == ["layer", "head", "readout", "relative", "cosine"]
    for name, wanted in zip(table.columns[2:], slow(model, a, b, texts), strict=True):
        assert table[name].to_numpy() == pytest.approx(wanted.flatten().numpy(), rel=1e-4), name


def test_only_the_directions_that_are_asked_for_count(tiny):
    """With planted moments: receptances in the first key channel alone, of mean square 4."""
    total = torch.zeros(2, 2, 16, 16, dtype=torch.float64)
    total[:, :, 0, 0] = 40
    moments = Moments(total, 10)
    a, b = torch.zeros(2, 2, 16, 16), torch.zeros(2, 2, 16, 16)
    a[..., 0, 0], b[..., 3, 0] = 3, 4
    b[..., 5:, 1:] = 1000
    table = readout_distance(tiny, State(a, like=tiny), State(b, like=tiny), moments)
    assert table["readout"].to_numpy() == pytest.approx([10] * 4) and table["relative"].to_numpy() == pytest.approx(
        [10 / 6] * 4
    )
    assert table["cosine"].to_numpy() == pytest.approx([0] * 4)
    assert lab.head_distance(State(a), State(b))["frobenius"].min() > 10_000


def test_values_may_be_more_or_fewer_than_keys():
    from types import SimpleNamespace

    moments = Moments(torch.eye(5, dtype=torch.float64).expand(1, 2, 5, 5) * 6, 3)
    dims = Dims("x070", L=1, H=2, C=10, K=5, V=3, ffn=9, vocab=9)
    model = SimpleNamespace(dims=dims, card=SimpleNamespace(fingerprint=""))
    a, b = (State(torch.randn(1, 2, 3, 5, generator=torch.Generator().manual_seed(seed))) for seed in (0, 1))
    table = readout_distance(model, a, b, moments)
    plain = lab.head_distance(a, b)
    assert table["readout"].to_numpy() == pytest.approx(plain["frobenius"].to_numpy() * 2**0.5)
    for name in ("relative", "cosine"):
        assert table[name].to_numpy() == pytest.approx(plain[name].to_numpy())


def test_equal_states_lie_nowhere_apart_and_a_zero_one_has_no_scale(tiny, random_state):
    a = random_state()
    table = readout_distance(tiny, a, a, TEXT)
    assert (table["readout"] == 0).all() and (table["relative"] == 0).all()
    assert table["cosine"].to_numpy() == pytest.approx(1)
    there, back = readout_distance(tiny, tiny.zero(), a, TEXT), readout_distance(tiny, a, tiny.zero(), TEXT)
    assert (there["relative"] == math.inf).all() and there["cosine"].isna().all()
    assert back["relative"].to_numpy() == pytest.approx(1) and (back["readout"] > 0).all()


def test_moments_may_be_used_again_and_are_those_of_all_tokens(tiny, random_state):
    a, b = random_state(), random_state(seed=1)
    moments = receptance_moments(tiny, [TEXT, TEXT])
    assert moments.tokens == 2 * len(TEXT)
    assert torch.equal(moments.total, moments.total.mT)
    assert (torch.linalg.eigvalsh(moments.total) > -1e-9).all()
    again = readout_distance(tiny, a, b, moments)
    assert np.allclose(again, readout_distance(tiny, a, b, TEXT), rtol=1e-9)


def test_a_floor_stands_beside_it(tiny, random_state):
    a, b, c, d = (random_state(seed=seed) for seed in range(4))
    c = b + 0.1 * c
    table = readout_distance(tiny, a, b, TEXT, floor=[c, (c, d)])
    assert [*table.columns[5:]] == ["readout_floor", "relative_floor", "cosine_floor", "beyond"]
    one, two = readout_distance(tiny, b, c, TEXT), readout_distance(tiny, c, d, TEXT)
    for name in ("readout", "relative", "cosine"):
        assert table[f"{name}_floor"].to_numpy() == pytest.approx((one[name] + two[name]).to_numpy() / 2)
    assert table["beyond"].to_numpy() == pytest.approx((table["readout"] / table["readout_floor"]).to_numpy())


def test_nan_stays_in_its_head_and_nothing_given_changes(tiny, random_state):
    a = random_state()
    wkv = a.wkv.clone()
    wkv[1, 0, 2, 3] = float("nan")
    before = a.wkv.clone()
    table = readout_distance(tiny, a, a.replace(wkv=wkv), TEXT)
    assert table.iloc[2, 2:].isna().all() and table.drop(2).notna().all(axis=None)
    assert torch.equal(a.wkv, before)


def test_infinity_is_a_row_of_nan_also_beside_a_head_of_zeros(tiny, random_state):
    a = random_state()
    wkv, zeros = torch.ones_like(a.wkv), a.wkv.clone()
    wkv[1, 0, 2, 3] = float("inf")
    zeros[1, 0] = 0
    for one, two in ((wkv, a.wkv), (a.wkv, wkv), (zeros, wkv)):
        table = readout_distance(tiny, a.replace(wkv=one), a.replace(wkv=two), TEXT)
        assert table.iloc[2, 2:].isna().all() and table.drop(2).notna().all(axis=None)


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (Task("t", ["a"], ["b"]), "^texts: need .* got a Task; give task.prompts"),
        ([Task("t", ["a"], ["b"])], r"^texts\[0\]: need a text, got a Task"),
        ([TEXT, None], r"^texts\[1\]: .*got NoneType"),
        ([1, 2], r"^texts\[0\]: .*got int"),
        ([TEXT, ""], r"^texts\[1\]: empty"),
    ],
)
def test_what_is_no_text_is_named(tiny, random_state, texts, words):
    with pytest.raises((ArgError, PromptError), match=words):
        readout_distance(tiny, random_state(), random_state(), texts)


@pytest.mark.parametrize(
    ("texts", "error"),
    [
        ([], ArgError),
        (None, ArgError),
        (5, ArgError),
        ("", PromptError),
        ([TEXT, ""], PromptError),
        ([[]], PromptError),
    ],
)
def test_texts_are_texts(tiny, random_state, texts, error):
    with pytest.raises(error):
        readout_distance(tiny, random_state(), random_state(), texts)


def test_states_that_do_not_fit_are_refused(tiny, random_state):
    a, other = random_state(), State(torch.ones(2, 3, 16, 16))
    with pytest.raises(MismatchError, match="shapes differ"):
        readout_distance(tiny, a, other, TEXT)
    with pytest.raises(MismatchError, match="H=3"):
        readout_distance(tiny, other, other, TEXT)
    with pytest.raises(MismatchError, match=r"floor\[0\]"):
        readout_distance(tiny, a, a, TEXT, floor=[other])
    with pytest.raises(MismatchError, match="another base"):
        readout_distance(tiny, a, a.replace(card=a.card.replace(base="5" * 64)), TEXT)
    with pytest.raises(ArgError, match="model: "):
        readout_distance(None, a, a, TEXT)
    with pytest.raises(ArgError, match="b: need a State"):
        readout_distance(tiny, a, None, TEXT)


def test_on_the_micro_model_another_task_lies_further_than_another_seed():
    model, shelf = lab.bundled()
    _, seeds = lab.bundled("micro", seed=1)
    texts = ["abcde>", "bca>", "defg>gfed"]
    table = readout_distance(model, shelf["copy"], shelf["reverse"], texts, floor=[seeds["reverse"]])
    assert (table["beyond"] > 1).mean() > 0.7
