import time
import warnings

import numpy as np
import pytest
import torch

from rwkvlab.bundled import bundled
from rwkvlab.errors import ArgError, MismatchError, NonFiniteError, PromptError
from rwkvlab.measure.interval import interval
from rwkvlab.measure.patching import starts as patch_starts
from rwkvlab.measure.patching.patch import patch_map
from rwkvlab.model.engine import load_model
from rwkvlab.model.random_weights import random_weights
from rwkvlab.shapes import Dims
from rwkvlab.states.blend import splice
from rwkvlab.states.state import State
from rwkvlab.tasks.builtin import micro_tasks

PROMPTS = ["ab", "c", "a longer one", "de"]
PAIR = (["x", "yz", "q", "uvw"], ["yy", "x", "abc", "w"])
GEOMETRIES = {
    "x070": ({"H": 2, "K": 16, "V": 16, "C": 32, "ffn": 64}, {"w": 4, "a": 4, "v": 4, "g": 4}),
    "x060": ({"H": 3, "K": 8, "V": 8, "C": 24, "ffn": 56}, {"maa": 3, "decay": 5}),
    "x052": ({"H": 2, "K": 8, "V": 8, "C": 16, "ffn": 40}, {}),
}


def states_for(model, count=2, shifts=False):
    generator = torch.Generator().manual_seed(1)
    dims = model.dims
    make = lambda *shape: 3 * torch.randn(*shape, generator=generator)  # noqa: E731
    return [
        State(
            make(dims.L, dims.H, dims.V, dims.K),
            like=model,
            att_shift=make(dims.L, dims.C) if shifts else None,
            ffn_shift=make(dims.L, dims.C) if shifts else None,
        ).named(f"state {i}")
        for i in range(count)
    ]


@pytest.fixture(scope="module")
def random_model(tmp_path_factory):
    """random_model(arch, only=None) -> a small model; with only=(layer, head), no other head's memory is read."""

    def make(arch, only=None):
        sizes, ranks = GEOMETRIES[arch]
        dims = Dims(arch, L=2, vocab=257, **sizes)
        weights = random_weights(dims, ranks, seed=3)
        for layer in range(dims.L if only else 0):
            output = weights[f"blocks.{layer}.att.output.weight"].view(dims.C, dims.H, dims.V)
            output[:, [head for head in range(dims.H) if (layer, head) != only]] = 0
        path = tmp_path_factory.mktemp("patch") / f"{arch}.pth"
        torch.save(weights, path)
        return load_model(path, tokenizer="bytes")

    return make


def log_odds(model, state, prompts, pair):
    scored = [model.score(prompts, list(side), state)["logprob"].to_numpy() for side in pair]
    return scored[0] - scored[1]


@pytest.mark.parametrize("arch", list(GEOMETRIES))
@pytest.mark.parametrize("only", [(0, 1), (1, 0)])
def test_the_head_that_alone_is_read_is_named(random_model, arch, only):
    model = random_model(arch, only)
    base, donor = states_for(model)
    table = patch_map(model, PROMPTS, base, donor, metric=PAIR)
    assert len(table) == model.dims.L * model.dims.H
    named = (table["layer"] == only[0]) & (table["head"] == only[1])
    whole = table.attrs["whole"]
    assert abs(whole) > 0.05
    for name in ("effect", "reverse"):
        assert table[named][name].to_numpy() == pytest.approx(whole, abs=1e-4)
        assert table[~named][name].to_numpy() == pytest.approx(0, abs=1e-4)
    assert table[named]["share"].item() == pytest.approx(1, abs=1e-2)
    layers = patch_map(model, PROMPTS, base, donor, metric=PAIR, per="layer")
    assert layers["effect"].to_numpy() == pytest.approx([whole * (layer == only[0]) for layer in (0, 1)], abs=1e-4)


@pytest.mark.parametrize("arch", list(GEOMETRIES))
def test_batches_of_unequal_prompts_say_what_each_splice_says_alone(random_model, arch, monkeypatch):
    monkeypatch.setattr(patch_starts, "ROWS", 5)
    monkeypatch.setattr(patch_starts, "TOKENS", 20)
    monkeypatch.setattr(patch_starts, "LOGITS", 257 * 6)
    model = random_model(arch)
    base, donor = states_for(model, shifts=True)
    long = ["x" * 70, *PROMPTS[1:]]
    before = base.wkv.clone()
    table = patch_map(model, long, base, donor, metric=PAIR)
    ends = [log_odds(model, state, long, PAIR) for state in (base, donor)]
    assert table.attrs["whole"] == pytest.approx((ends[1] - ends[0]).mean(), abs=1e-4)
    assert table.attrs["prompts"] == 4
    for row in table.itertuples():
        at = [(row.layer, row.head)]
        gained = log_odds(model, splice(base, donor, at), long, PAIR) - ends[0]
        lost = ends[1] - log_odds(model, splice(donor, base, at), long, PAIR)
        assert (row.effect, row.reverse) == pytest.approx((gained.mean(), lost.mean()), abs=1e-4)
        assert (row.low, row.high) == pytest.approx(interval(gained), abs=1e-3)
        assert (row.reverse_low, row.reverse_high) == pytest.approx(interval(lost), abs=1e-3)
        assert row.share == pytest.approx(row.effect / table.attrs["whole"])
        assert row.reverse_share == pytest.approx(row.reverse / table.attrs["whole"])
    assert torch.equal(base.wkv, before)


def test_a_layer_is_all_its_heads_and_a_part_is_that_part_of_all_layers(random_model):
    model = random_model("x060")
    base, donor = states_for(model, shifts=True)
    start = log_odds(model, base, PROMPTS, PAIR).mean()
    layers = patch_map(model, PROMPTS, base, donor, metric=PAIR, per="layer")
    assert "head" not in layers and layers["layer"].tolist() == [0, 1]
    for layer, effect in zip(layers["layer"], layers["effect"], strict=True):
        spliced = splice(base, donor, [(layer, head) for head in range(3)])
        assert effect == pytest.approx(log_odds(model, spliced, PROMPTS, PAIR).mean() - start, abs=1e-4)
    parts = patch_map(model, PROMPTS, base, donor, metric=PAIR, per="part")
    assert parts["part"].tolist() == ["wkv", "att_shift", "ffn_shift"]
    for part, effect in zip(parts["part"], parts["effect"], strict=True):
        replaced = base.replace(**{part: getattr(donor, part)})
        assert effect == pytest.approx(log_odds(model, replaced, PROMPTS, PAIR).mean() - start, abs=1e-4)


def test_none_is_the_zero_state(tiny, random_state):
    donor = random_state("d")
    got = patch_map(tiny, "ab", None, donor, metric=("x", "y"))
    want = patch_map(tiny, "ab", tiny.zero(), donor, metric=("x", "y"))
    assert got.equals(want)
    turned = patch_map(tiny, "ab", donor, None, metric=("x", "y"))
    assert turned["reverse"].to_numpy() == pytest.approx(-got["effect"].to_numpy(), abs=1e-4)


def test_without_a_metric_the_answers_are_those_that_the_states_give(tiny, random_state):
    base, donor = random_state("a"), random_state("b", 1)
    answers = []
    for state in (donor, base):
        said = [tiny.generate(prompt, state, max_tokens=32, temperature=0) for prompt in PROMPTS]
        answers.append([[*one.tokens, *[0] * (one.finish == "end")] for one in said])
    asked = list(zip(map(tiny.encode, PROMPTS), *answers, strict=True))
    assert all(wanted != other for _, wanted, other in asked)
    scored = [
        [tiny.score(ids, [wanted, other], state)["logprob"] for ids, wanted, other in asked] for state in (base, donor)
    ]
    ends = [np.mean([both[0] - both[1] for both in side]) for side in scored]
    table = patch_map(tiny, PROMPTS, base, donor)
    assert table.attrs["whole"] == pytest.approx(ends[1] - ends[0], rel=1e-4)
    assert ends[0] < 0 < ends[1]


def test_prompts_answered_alike_are_left_out_and_counted(tiny, random_state):
    base, donor = random_state("a"), random_state("b", 1)
    pair = (["x", "same", "q", "same"], ["yy", "same", "abc", "same"])
    with pytest.warns(UserWarning, match="patch_map: 2 of 4 prompts are left out"):
        table = patch_map(tiny, PROMPTS, base, donor, metric=pair)
    few = patch_map(tiny, [PROMPTS[0], PROMPTS[2]], base, donor, metric=[side[::2] for side in pair])
    assert table.attrs["prompts"] == 2
    assert table["effect"].to_numpy() == pytest.approx(few["effect"].to_numpy(), abs=1e-4)
    with pytest.raises(ArgError, match=r"each of the 4 prompts are the same; give metric="):
        patch_map(tiny, PROMPTS, base, base)


def test_an_effect_of_nothing_has_no_width_and_no_share(tiny, random_state):
    state = random_state()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        table = patch_map(tiny, PROMPTS, state, state, metric=("x", "y"))
    assert table[["effect", "low", "high"]].to_numpy() == pytest.approx(0, abs=1e-5)
    assert table[["share", "reverse_share"]].isna().all(axis=None)
    single = patch_map(tiny, "ab", None, state, metric=("x", "y"))
    assert single[["low", "high", "reverse_low", "reverse_high"]].isna().all(axis=None)
    assert single["share"].notna().all()


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"per": "heads"}, ArgError, "per: need 'head', 'layer' or 'part', got 'heads'"),
        ({"per": None}, ArgError, "per: need"),
        ({"base": "a.pth"}, ArgError, "base: need a State or None"),
        ({"donor": [None]}, ArgError, "donor: need a State or None"),
        ({"prompt": ""}, PromptError, "prompt: empty"),
        ({"prompt": []}, ArgError, "prompt: empty"),
        ({"prompt": None}, ArgError, "prompt: need a text"),
        ({"prompt": ["a", None]}, ArgError, r"prompt\[1\]: need a text"),
        ({"prompt": ["a", ""]}, PromptError, r"prompt\[1\]: empty"),
        ({"model": None}, ArgError, "model: need a model"),
    ],
)
def test_what_cannot_be_patched_is_named(tiny, random_state, change, error, words):
    given = {"model": tiny, "prompt": "ab", "base": None, "donor": random_state(), "metric": ("x", "y")} | change
    with pytest.raises(error, match=words):
        patch_map(**given)


def test_states_of_other_models_or_with_nan_are_refused(tiny, random_state, random_model):
    other = states_for(random_model("x060"))[0]
    with pytest.raises(MismatchError, match="state 0"):
        patch_map(tiny, "ab", None, other)
    broken = random_state().wkv.clone()
    broken[0, 0, 0, 0] = torch.nan
    with pytest.raises(NonFiniteError, match="donor: "):
        patch_map(tiny, "ab", None, State(broken, like=tiny))


def test_all_heads_of_the_micro_model_take_less_than_two_seconds():
    model, shelf = bundled()
    prompt = "qwertyuiopasdfghjklzxcvbnm" * 2 + "qazwsxedcrf>"
    assert len(model.encode(prompt)) == 64
    took = []
    for _ in range(3):  # a busy machine gets a second and a third chance
        start = time.perf_counter()
        assert len(patch_map(model, prompt, shelf["reverse"], shelf["sort"])) == 8
        took.append(time.perf_counter() - start)
    assert min(took) < 2


def test_the_order_of_letters_lies_in_the_first_layer_of_the_micro_model_and_their_names_in_the_second():
    model, shelf = bundled()
    tasks = {task.name: task for task in micro_tasks(12)}
    for base, donor, places in (("reverse", "sort", {(0, 1), (0, 3)}), ("next", "cipher", {(1, 3)})):
        table = patch_map(model, tasks[donor], shelf[base], shelf[donor], metric=(tasks[donor], tasks[base]))
        top = table.nlargest(len(places), "effect")
        assert set(zip(top["layer"], top["head"], strict=True)) == places
        assert top["effect"].sum() > 0.5 * table.attrs["whole"]
    other_seed = bundled(seed=1)[1]
    metric = (tasks["sort"], tasks["reverse"])
    control = patch_map(model, tasks["sort"], shelf["sort"], other_seed["sort"], metric=metric)
    assert control["effect"].abs().max() < 1  # nats, of about 29 between the two tasks
