import pytest
import torch

from rwkvlab.errors import ArgError, MismatchError
from rwkvlab.measure.patching import starts as patch_starts
from rwkvlab.measure.patching.metric import ask
from rwkvlab.measure.patching.patch import patch_map
from rwkvlab.measure.patching.starts import judged, mean_start, no_place
from rwkvlab.states.blend import mix


def test_no_batch_holds_more_states_than_memory_allows(tiny, random_state, monkeypatch):
    seen = []
    run = type(tiny).run

    def spy(model, tokens, flow, *rest):
        seen.append((len(tokens), flow.wkv[0].shape[0], tokens.numel()))
        return run(model, tokens, flow, *rest)

    monkeypatch.setattr(type(tiny), "run", spy)
    want = patch_map(tiny, ["ab" * 40, "c"], None, random_state(), metric=("xy", "z"))
    assert max(rows for rows, _, _ in seen) == 10  # four heads, both ways, and both ends
    seen.clear()
    state_bytes = 4 * 2 * 2 * 16 * 16
    monkeypatch.setattr(patch_starts, "BYTES", 3 * state_bytes)
    monkeypatch.setattr(patch_starts, "TOKENS", 60)
    got = patch_map(tiny, ["ab" * 40, "c"], None, random_state(), metric=("xy", "z"))
    assert max(rows for rows, _, _ in seen) == 3 == max(states for _, states, _ in seen)
    assert max(tokens for _, _, tokens in seen) <= 60
    assert got["effect"].to_numpy() == pytest.approx(want["effect"].to_numpy(), abs=1e-4)
    seen.clear()
    monkeypatch.setattr(patch_starts, "LOGITS", 2 * tiny.dims.vocab + 1)
    patch_map(tiny, ["ab", "c"], None, random_state(), metric=("xy", "z"))
    assert max(rows for rows, _, _ in seen) == 2


def test_every_choice_takes_just_its_places_from_the_donor(tiny, random_state):
    base, donor = random_state("a"), random_state("b", 1)
    asked = ask(tiny, "ab", base, donor, ("x", "y"), "here")
    none = no_place(tiny.dims)
    assert none.shape == (2 * 2 + 2,) and not none.any()
    some = none.clone()
    some[[1, 2]] = True
    got = judged(tiny, asked, base, donor, torch.stack((none, some, ~none)), "here")
    wkv = base.wkv.clone()
    wkv[0, 1], wkv[1, 0] = donor.wkv[0, 1], donor.wkv[1, 0]
    for value, state in zip(got[:, 0], (base, base.replace(wkv=wkv), donor), strict=True):
        scored = tiny.score("ab", ["x", "y"], state)["logprob"]
        assert value == pytest.approx(scored[0] - scored[1], abs=1e-4)


def test_several_states_become_their_mean(tiny, random_state):
    states = [random_state("a"), random_state("b", 1), random_state("c", 2)]
    want = mix(states, [1 / 3] * 3)
    for given in (states, {state.card.name: state for state in states}, iter(states)):
        assert torch.equal(mean_start(tiny, "by", given).wkv, want.wkv)
    assert not mean_start(tiny, "by", None).wkv.any()
    with pytest.raises(ArgError, match="by: empty"):
        mean_start(tiny, "by", [])
    with pytest.raises(ArgError, match=r"by\[1\]: need a State"):
        mean_start(tiny, "by", [states[0], "b"])
    with pytest.raises(MismatchError):
        mean_start(tiny, "by", states[0].replace(card=states[0].card.replace(arch="x060")))
