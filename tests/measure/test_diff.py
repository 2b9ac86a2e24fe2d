"""diff says what two states are to one another, on one page, and never fails because they do not go together."""

import json
import math
import re

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

import rwkvlab as lab
from rwkvlab.errors import ArgError, PathError, PromptError
from rwkvlab.measure.diff import diff
from rwkvlab.measure.diff_findings import ROUNDING, nearest
from rwkvlab.measure.readout import readout_distance
from rwkvlab.measure.spectrum import norms, spectrum
from rwkvlab.states.columns import text_width
from rwkvlab.states.state import State


def state(seed=0, shape=(2, 3, 4, 4), **card):
    wkv = torch.randn(*shape, generator=torch.Generator().manual_seed(seed))
    return State(wkv, card=lab.StateCard(**card))


def said(a, b, *more):
    return "\n".join(diff(a, b, *more).findings)


def test_the_numbers_are_those_of_head_distance_and_of_the_norms():
    a, b = state(0), state(1)
    found = diff(a, b)
    table = lab.head_distance(a, b)
    assert [*found.heads.columns] == ["layer", "head", "norm_a", "norm_b", *table.columns[2:]]
    assert found.heads[table.columns].equals(table)
    assert found.heads["norm_b"].to_numpy() == pytest.approx(b.wkv.flatten(2).norm(dim=2).flatten().numpy())
    assert found.totals["distance"] == pytest.approx(float((b.wkv - a.wkv).norm()))
    assert found.totals["relative"] == pytest.approx(float((b.wkv - a.wkv).norm() / a.wkv.norm()))
    assert found.totals["cosine"] == pytest.approx(
        float(torch.cosine_similarity(*(s.wkv.flatten() for s in (a, b)), 0))
    )
    assert found.layers["distance"].to_numpy() == pytest.approx((b.wkv - a.wkv).flatten(1).norm(dim=1).numpy())
    assert [*found.layers.columns] == [
        *("layer", "norm_a", "att_shift_a", "ffn_shift_a", "norm_b", "att_shift_b", "ffn_shift_b", "distance")
    ]


def test_the_nearest_multiple_is_that_of_least_squares():
    a, b = state(0), state(1)
    x, y = (s.wkv.double().flatten() for s in (a, b))
    scale, rest = np.linalg.lstsq(x[:, None].numpy(), y.numpy(), rcond=None)[:2]
    found = nearest(a, b)
    assert found.scale == pytest.approx(scale[0]) and found.residual == pytest.approx(
        float((rest[0] / y.dot(y)) ** 0.5)
    )
    turned = nearest(a, State(b.wkv.mT), turned=True)
    assert turned.scale == pytest.approx(
        float((a.wkv.mT.double() * b.wkv.mT.double()).sum() / a.wkv.double().square().sum())
    )
    assert nearest(a, a * 3) == (pytest.approx(3), pytest.approx(0, abs=1e-7), pytest.approx(1))


def test_the_smallest_difference_has_its_size():
    a = state(0, (8, 8, 16, 16))
    wkv = a.wkv.clone()
    wkv[3, 2, 1, 0] = torch.nextafter(wkv[3, 2, 1, 0], torch.tensor(9.0))
    change = float((wkv.double() - a.wkv.double()).norm() / wkv.double().norm())
    assert change < 1e-8 and nearest(a, State(wkv)).residual == pytest.approx(change, rel=1e-3)
    assert "b is a but for rounding" in said(a, State(wkv))


def test_equal_matrices_multiples_and_roundings_are_told_apart():
    a = state()
    assert said(a, a.replace(wkv=a.wkv)) == "the WKV matrices are equal, number for number"
    assert said(a, a * 0.5) == "b is 0.5 times a, exactly"
    assert said(a, a * -1) == "b is -1 times a, exactly"
    assert re.fullmatch(r"b is 0.3 times a, but for \S+e-08 of its norm", said(a, a * 0.3))
    for dtype in (torch.float16, torch.bfloat16):
        assert re.fullmatch(r"b is a but for rounding: 0.00\d+ of its norm", said(a, State(a.wkv.to(dtype))))
    assert "no multiple of a" in said(
        a, a + 2 * ROUNDING * float(a.wkv.norm()) * (state(1) / float(state(1).wkv.norm()))
    )
    assert "no multiple of a: the nearest, " in said(a, state(1))


def test_a_transpose_is_seen_also_where_shapes_differ_and_where_it_was_scaled():
    a = state()
    assert said(a, lab.transposed(a)).startswith("b is a with every head transposed, exactly: one of them was stored")
    assert "transposed times 2, exactly" in said(a, lab.transposed(a) * 2)
    assert "transposed, but for" in said(a, State(a.wkv.mT.bfloat16()))
    wide = state(shape=(2, 3, 4, 5))
    text = said(wide, State(wide.wkv.mT))
    assert "[2, 3, 4, 5] and [2, 3, 5, 4]" in text and "every head transposed, exactly" in text
    symmetric = State(a.wkv + a.wkv.mT)
    assert said(symmetric, lab.transposed(symmetric)) == "the WKV matrices are equal, number for number"


def test_a_splice_names_the_fewer_heads():
    a, b = state(0), state(1)
    assert "5 of 6 heads are equal, as in a splice: the others are L1H2" in said(a, lab.splice(a, b, at=[(1, 2)]))
    assert "2 of 6 heads are equal, as in a splice: L0H1, L1H0" in said(a, lab.splice(b, a, at=[(0, 1), (1, 0)]))
    stored = State(lab.splice(b, a, at=[(0, 1)]).wkv.half())
    assert "1 of 6 heads are equal but for rounding, as in a splice: L0H1" in said(a, stored)
    assert "splice" not in said(a, b) and "splice" not in said(a, a)


def test_heads_that_are_zero_in_both_make_no_splice():
    a, b = state(0), state(1)
    zeros = torch.ones(2, 3, 1, 1)
    zeros[0, 0] = 0
    assert "splice" not in said(a.replace(wkv=a.wkv * zeros), b.replace(wkv=b.wkv * zeros))
    assert said(a * 0, a) == "the WKV matrices of a are zero" and said(a, a * 0) == "the WKV matrices of b are zero"
    assert said(a * 0, a * 0) == "the WKV matrices of both are zero"


def test_token_shifts_are_compared_where_there_are_some():
    a = state()
    shifted = a.replace(att_shift=torch.full((2, 12), 0.5))
    assert "att_shift differs: norms 0 and 2.45, 2.45 apart" in said(a, shifted)
    assert "ffn_shift" not in said(a, shifted) and "att_shift is equal" in said(shifted, shifted)


def test_equal_files_are_told_from_equal_matrices(tmp_path, random_state):
    one = lab.save_state(random_state("emoji"), tmp_path / "one.pth")
    (tmp_path / "two.pth").write_bytes(one.read_bytes())
    three = lab.save_state(random_state("emoji"), tmp_path / "three.safetensors")
    found = diff(one, str(tmp_path / "two.pth"))
    assert found.findings == ("the files are the same, byte for byte", "the WKV matrices are equal, number for number")
    assert (found.a["file"], found.a["bytes"]) == ("one.pth", one.stat().st_size)
    assert "the files are the same" not in said(one, three) and "equal, number for number" in said(one, three)
    assert "from one.pth" in repr(found) and "from two.pth" in repr(found)


@pytest.mark.parametrize("shape", [(2, 2, 4, 4), (3, 3, 4, 4), (2, 3, 5, 4)])
def test_states_of_other_shapes_are_described_all_the_same(shape):
    found = diff(state(name="one"), state(1, shape, name="two"))
    assert "shapes differ, [L,H,V,K] [2, 3, 4, 4] and " + str(list(shape)) in found.findings[0]
    assert len(found.heads) == 0 and "distance" not in found.totals
    assert found.layers["norm_b"].notna().sum() == shape[0] and found.layers["distance"].isna().all()
    assert "'one'" in repr(found) and "two" in found._repr_html_() and json.dumps(found.to_dict())


def test_states_of_other_architectures_and_bases_are_compared_with_a_warning():
    a, b = state(arch="x060", base="0" * 64), state(1, arch="x070", base="f" * 64)
    found = diff(a, b)
    assert found.findings[0].startswith("made for different architectures, RWKV-6 and RWKV-7")
    assert found.findings[1].startswith("made on different base models") and len(found.heads) == 6
    assert "different base" in said(a, state(base="no fingerprint at all"))
    assert "different" not in said(a, state(1))


def test_nan_is_said_and_stays_in_its_heads():
    a = state()
    wkv = state(1).wkv.clone()
    wkv[0, 1, 0, 0] = float("nan")
    found = diff(a, State(wkv))
    assert found.findings == ("there is NaN or infinity in b: such heads have no numbers below",)
    assert found.heads["frobenius"].isna().tolist() == [False, True, False, False, False, False]
    assert math.isnan(found.totals["distance"]) and found.to_dict()["totals"]["distance"] is None
    assert "?█" in repr(found) and "5 of 6 heads differ" in repr(found)
    wkv[0, 1, 0, 0] = float("inf")
    assert diff(State(wkv), a).findings == ("there is NaN or infinity in a: such heads have no numbers below",)


def test_with_a_model_the_readouts_are_compared(tiny, random_state):
    a, b = random_state("a"), random_state("b", 1)
    texts = ["Eleven ships before noon.", ("Who?", "The keeper.")]
    found = diff(a, b, tiny, texts)
    ids = [tiny.encode(texts[0]), tiny.encode("User: Who?\n\nAssistant: The keeper.\n\n")]
    wanted = readout_distance(tiny, a, b, ids)
    assert found.totals["tokens"] == sum(map(len, ids))
    for ours, theirs in (("readout", "readout"), ("readout_relative", "relative"), ("readout_cosine", "cosine")):
        assert found.heads[ours].to_numpy() == pytest.approx(wanted[theirs].to_numpy())
    assert found.totals["readout"] == pytest.approx(float(np.linalg.norm(wanted["readout"])))
    size = np.linalg.norm(wanted["readout"] / wanted["relative"])
    assert found.totals["readout_relative"] == pytest.approx(found.totals["readout"] / size)
    assert f"read-outs (rms over {found.totals['tokens']} tokens)" in repr(found) and "read: over a's" in repr(found)
    assert diff(a, b, tiny).totals["tokens"] > 500  # texts of our own


def test_what_cannot_be_read_is_said_or_refused(tiny, random_state):
    a, other = random_state("a"), state(name="other")
    assert "the read-outs are not compared: 'other': H=3 (model 2)" in said(a, other, tiny)
    with pytest.raises(PromptError, match=r"texts\[0\]"):
        diff(a, a, tiny, ["x"])
    with pytest.raises(ArgError, match="texts: empty"):
        diff(a, a, tiny, [])
    with pytest.raises(ArgError, match="add model="):
        diff(a, a, texts=["some text"])


def test_one_text_is_given_as_it_is(tiny, random_state):
    a, b = random_state("a"), random_state("b", 1)
    one, several = (diff(a, b, tiny, texts) for texts in ("some text", ["some text"]))
    assert one.totals == several.totals and one.totals["tokens"] == len("some text")
    with pytest.raises(ArgError, match=r"texts: need .* give task\.prompts"):
        diff(a, b, tiny, lab.Task("t", ["a"], ["b"]))


def test_a_vocabulary_that_cannot_write_our_texts_is_no_error(tiny_file, random_state, tmp_path):
    (tmp_path / "vocab.txt").write_text("1 'a' 1\n2 'b' 1\n")
    model = lab.load_model(tiny_file, tokenizer=tmp_path / "vocab.txt")
    found = diff(random_state(), random_state(seed=1), model)
    assert "the read-outs are not compared: the built-in texts" in found.findings[-1]
    assert "readout" not in found.totals and "readout" not in found.heads
    assert "readout" in diff(random_state(), random_state(seed=1), model, ["abba"]).totals


def test_a_file_that_does_not_fit_the_model_is_described_all_the_same(tiny, random_state, tmp_path):
    path = lab.save_state(state(name="wide"), tmp_path / "wide.safetensors")
    assert "shapes differ" in said(random_state(), path, tiny)


@pytest.mark.parametrize("bad", [None, 3, [], b"a.pth"])
def test_what_is_no_state_and_no_path_is_refused(bad):
    with pytest.raises(ArgError, match="b: need a State or a path"):
        diff(state(), bad)
    with pytest.raises(ArgError, match="a: need a State or a path"):
        diff(bad, state())


def test_a_missing_file_and_a_model_that_is_none_are_refused():
    with pytest.raises(PathError, match="nowhere"):
        diff(state(), "nowhere.pth")
    with pytest.raises(ArgError, match="model: need a model"):
        diff(state(), state(1), "model.pth")


LONG = "文言文 and more " * 20


@pytest.mark.parametrize("shape", [(2, 3, 4, 4), (61, 12, 4, 4), (1, 1, 2, 2)])
def test_the_page_is_narrow_and_short(shape):
    card = {"name": LONG, "source": LONG, "template": LONG, "notes": (LONG,) * 9, "recipe": LONG, "parents": (LONG,)}
    a, b = state(0, shape, **card), state(1, shape, arch="x070")
    a = a.replace(wkv=a.wkv * 1e-12, att_shift=torch.ones(shape[0], shape[1] * shape[3]))
    lines = repr(diff(a, b)).split("\n")
    assert max(map(text_width, lines)) <= 80 and len(lines) <= 45
    assert not any(line != line.rstrip() for line in lines)


def test_the_heads_that_differ_most_stand_first():
    a = state(0, (4, 4, 4, 4))
    wkv = a.wkv.clone()
    for at in range(12):
        wkv[at // 4, at % 4] += 0.1 * (at + 1)
    lines = repr(diff(a, State(wkv))).split("\n")
    at = next(index for index, line in enumerate(lines) if "of 16 heads the 10 that differ most" in line)
    assert [line.split()[0] for line in lines[at + 2 :]] == [f"L{i // 4}H{i % 4}" for i in range(11, 1, -1)]
    few = repr(diff(a, lab.splice(a, State(wkv), at=[(2, 3)])))
    assert "1 of 16 heads differ" in few and few.split("\n")[-1].split()[0] == "L2H3"


def test_the_html_is_the_page_and_a_map_of_the_distances():
    found = diff(state(name="<b>"), state(1))
    page = found._repr_html_()
    assert "&lt;b&gt;" in page and "<b>" not in page
    assert f"layer 1, head 2: norm of b - a {found.heads['frobenius'][5]:.3g}" in page


def test_a_difference_draws_itself_on_the_axes_that_it_is_given():
    ax = Figure().subplots()
    found = diff(state(), state(1))
    assert found.plot(ax=ax) is ax
    assert np.allclose(ax.images[0].get_array(), found.heads["frobenius"].to_numpy().reshape(2, 3))
    assert found.plot("cosine", Figure().subplots()).images[0].norm.vmin < 0
    with pytest.raises(ArgError, match="'none' is not among them"):
        found.plot("none", ax)


def test_the_styled_heads_are_sorted_and_have_bars():
    b = state(1)
    wkv = state().wkv.clone()
    wkv[0, 1] = 0  # of zero norm: relative is infinite
    found = diff(State(wkv), b)
    page = found.style.to_html()
    cells = re.findall(r'class="data row\d+ col([01])" >(\d+)<', page)
    shown = list(zip((text for at, text in cells if at == "0"), (text for at, text in cells if at == "1"), strict=True))
    want = found.heads.sort_values("frobenius", ascending=False)[["layer", "head"]].astype(int).astype(str)
    assert shown == list(map(tuple, want.to_numpy())) and len(shown) == 6
    assert page.count("linear-gradient") >= 4 and "nan%" not in page and "inf%" not in page and ">inf<" in page
    assert len(diff(state(), state()).style.to_html()) > 100  # where nothing differs there are no bars, and no error


def test_states_without_common_heads_are_not_drawn():
    found = diff(state(), state(1, (2, 3, 5, 5)))
    for call in (found.plot, lambda: found.style):
        with pytest.raises(ArgError, match=r"no heads in common, \[L,H,V,K\] \[2, 3, 4, 4\] and \[2, 3, 5, 5\]"):
            call()


def test_everything_is_in_the_dictionary_ready_for_json():
    found = json.loads(json.dumps(diff(state(0, name="\ud800"), state(1) * 0).to_dict(), allow_nan=False))
    assert found["a"]["L"] == 2 and found["b"]["K"] == 4 and found["a"]["card"]["name"] == "\\ud800"
    assert len(found["heads"]) == 6 and len(found["layers"]) == 2 and found["heads"][5]["layer"] == 1
    assert found["heads"][0]["cosine"] is None and found["totals"]["norm_b"] == 0
    assert found["findings"] == ["the WKV matrices of b are zero"]


def test_nothing_that_is_given_changes():
    a, b = state(0), state(1)
    before = a.wkv.clone(), b.wkv.clone()
    repr(diff(a, b))
    assert torch.equal(a.wkv, before[0]) and torch.equal(b.wkv, before[1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_states_and_models_on_a_gpu_are_measured_as_on_the_cpu(tiny_file):
    gpu, cpu = (lab.load_model(tiny_file, tokenizer="bytes", device=device) for device in ("cuda", "cpu"))
    a, b = (state(seed, (2, 2, 16, 16)) for seed in (0, 1))
    texts = ["Eleven ships before noon."]
    there, here = diff(a.to("cuda"), b, gpu, texts), diff(a, b.to("cuda"), cpu, texts)
    assert there.heads.to_numpy() == pytest.approx(here.heads.to_numpy(), rel=1e-3)
    assert there.findings == here.findings and there.layers.equals(here.layers)
    assert spectrum(a.to("cuda")).equals(spectrum(a)) and norms(a.to("cuda"), per="layer").shape == (2, 4)
    floors = [lab.head_distance(a.to("cuda"), b, floor=[a]), lab.head_distance(a, b.to("cuda"), floor=[a.to("cuda")])]
    assert floors[0].equals(floors[1])
    assert a.to("cuda")._repr_html_() == a._repr_html_() and repr(a.to("cuda")).endswith(" on cuda:0>")
