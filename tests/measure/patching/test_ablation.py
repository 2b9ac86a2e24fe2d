import pytest

from rwkvlab.errors import ArgError
from rwkvlab.measure.patching.ablation import ablation_map
from rwkvlab.measure.patching.patch import patch_map
from rwkvlab.states.blend import mix, splice

PROMPTS, PAIR = ["ab", "c d", "efg"], (["x", "yz", "q"], ["yy", "x", "abc"])


@pytest.mark.parametrize("per", ["head", "layer", "part"])
@pytest.mark.parametrize("metric", [PAIR, None])
def test_ablation_is_the_patch_read_backwards(tiny, random_state, per, metric):
    state, by = random_state("a"), random_state("b", 1)
    got = ablation_map(tiny, PROMPTS, state, by=by, metric=metric, per=per)
    back = patch_map(tiny, PROMPTS, by, state, metric=metric, per=per)
    for name in ("effect", "low", "high", "share"):
        other = back["reverse" if name == "effect" else f"reverse_{name}"]
        assert got[name].to_numpy() == pytest.approx(other.to_numpy(), abs=1e-3)
    assert "reverse" not in got
    assert got.attrs == pytest.approx(back.attrs, abs=1e-3)


def test_zeros_and_means_stand_in_for_a_head(tiny, random_state):
    states = [random_state(name, at) for at, name in enumerate("abc")]
    for by, mean in ((None, tiny.zero()), (states, mix(states, [1 / 3] * 3))):
        table = ablation_map(tiny, PROMPTS, states[0], by=by, metric=PAIR)
        for row in table.itertuples():
            lost = 0.0
            for sign, state in ((1, states[0]), (-1, splice(states[0], mean, [(row.layer, row.head)]))):
                for side, weight in zip(PAIR, (1, -1), strict=True):
                    lost += sign * weight * tiny.score(PROMPTS, side, state)["logprob"].mean()
            assert row.effect == pytest.approx(lost, abs=1e-3)


def test_what_cannot_be_ablated_is_named(tiny, random_state):
    with pytest.raises(ArgError, match="state: need a State"):
        ablation_map(tiny, "ab", 3)
    with pytest.raises(ArgError, match="by: need a list"):
        ablation_map(tiny, "ab", random_state(), by=3)
    with pytest.raises(ArgError, match="ablation_map: the wanted and the other answer to the prompt are the same"):
        ablation_map(tiny, "ab", None)
