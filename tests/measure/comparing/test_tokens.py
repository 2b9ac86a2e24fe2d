import pytest
import torch

from rwkvlab.measure.comparing.compare import compare
from rwkvlab.measure.comparing.tokens import ALIGNED, TOKENS, Answers, aligned, settle
from rwkvlab.model.engine import load_model
from rwkvlab.model.random_weights import random_weights
from rwkvlab.shapes import Dims
from rwkvlab.states.state import State
from rwkvlab.tasks.templates import get_template

SHORT = {"max_tokens": 6, "temperature": 1.0, "top_p": 1.0}


@pytest.fixture(scope="module")
def tiny6(tmp_path_factory):
    """A random RWKV-6 that reads bytes."""
    dims = Dims("x060", L=2, H=2, C=32, K=16, V=16, ffn=64, vocab=257)
    path = tmp_path_factory.mktemp("tiny6") / "tiny6.pth"
    torch.save(random_weights(dims, {"maa": 4, "decay": 4}), path)
    return load_model(path, tokenizer="bytes")


def by_hand(model, prompt, ids, state):
    """Return log-probabilities [T,vocab] of the next token at every token of ids, in float64."""
    read = model.encode(f"User: {prompt}\n\nAssistant:")
    logits = model.forward([*read, *ids], state).logits[0].double()
    return logits.log_softmax(dim=-1)[len(read) - 1 : -1]


@pytest.mark.parametrize("version", ["tiny", "tiny6"])
def test_kl_and_surprise_are_those_of_a_plain_forward_along_both_texts(version, request):
    model = request.getfixturevalue(version)
    generator = torch.Generator().manual_seed(0)
    states = {name: State(4 * torch.randn(2, 2, 16, 16, generator=generator), like=model) for name in "ab"}
    result = compare(model, ["hi", "what?"], states, n=2, seed=3, **SHORT)
    assert tuple(result.tokens.columns) == TOKENS
    groups = list(result.tokens.groupby(["prompt", "state", "sample", "along"], sort=False))
    assert len(groups) == 2 * 3 * 2 * 2
    own = result.written.groupby(["prompt", "state", "sample"])
    for (prompt, name, sample, along), rows in groups:
        ids = rows["id"].tolist()
        assert ids == own.get_group((prompt, name if along == "own" else "zero", sample))["id"].tolist()
        assert rows["token"].tolist() == list(range(len(ids)))
        here, base = by_hand(model, prompt, ids, states.get(name)), by_hand(model, prompt, ids, None)
        assert rows["kl"].to_numpy() == pytest.approx((here.exp() * (here - base)).sum(-1).numpy(), rel=1e-3, abs=1e-6)
        at = range(len(ids))
        assert rows["surprise"].to_numpy() == pytest.approx(-here[at, ids].numpy(), abs=1e-4)
        assert rows["surprise_baseline"].to_numpy() == pytest.approx(-base[at, ids].numpy(), abs=1e-4)
    assert result.tokens.query("state != 'zero'")["kl"].median() > 1e-2
    assert (result.tokens.query("state == 'zero'")["kl"] == 0).all()


def test_the_surprise_of_an_answer_is_the_logprob_of_the_table(tiny, random_state):
    result = compare(tiny, "hi", [random_state("a")], **SHORT)
    total = -result.tokens.query("along == 'own'").groupby("state")["surprise"].sum()
    assert total.to_dict() == pytest.approx(result.table.set_index("state")["logprob"].to_dict(), abs=1e-3)


def test_equal_arms_have_no_kl_and_no_difference(tiny, random_state):
    a = random_state("a")
    result = compare(tiny, "hi", {"one": a, "two": a}, baseline="one", **SHORT)
    assert result.tokens["same"].all() and (result.tokens["kl"].abs() < 1e-6).all()
    assert "<mark>" not in result._repr_html_().split("<table")[1]


def test_batches_of_few_states_give_the_same(tiny, random_state, monkeypatch):
    states = [random_state(f"s{seed}", seed) for seed in range(5)]
    whole = compare(tiny, "hi", states, **SHORT).tokens
    monkeypatch.setattr("rwkvlab.measure.comparing.tokens.ROWS", 3)
    apart = compare(tiny, "hi", states, **SHORT).tokens
    assert apart["kl"].to_numpy() == pytest.approx(whole["kl"].to_numpy(), abs=1e-5)
    assert apart.drop(columns=["kl", "surprise", "surprise_baseline"]).equals(
        whole[apart.columns].drop(columns=["kl", "surprise", "surprise_baseline"])
    )


def test_no_token_is_no_row_and_the_other_text_is_still_read(tiny, random_state):
    nothing = compare(tiny, "hi", [random_state("a")], max_tokens=0)
    assert nothing.tokens.empty and tuple(nothing.tokens.columns) == TOKENS
    assert "0 tokens, length" in nothing._repr_html_()


def test_an_answer_is_read_from_both_starts_where_the_baseline_wrote_nothing(tiny, random_state):
    arms, ids = {"zero": None, "a": random_state("a")}, {("hi", "zero", 0): (), ("hi", "a", 0): (66, 67)}
    read = Answers(tiny, get_template("raw"), arms, ids).read()
    assert read["state"].tolist() == ["a", "a"] and read["along"].tolist() == ["own", "own"]
    assert (read["kl"] > 0).all() and not read["same"].any()


def test_pieces_join_to_the_text_and_a_cut_character_stands_at_its_last_token(tiny):
    ids = tiny.tokenizer.encode("a文\n")
    assert settle(tiny.tokenizer, ids) == ["a", "", "", "文", "\n"]
    assert settle(tiny.tokenizer, ids[:3]) == ["a", "", "\ufffd"]
    assert settle(tiny.tokenizer, []) == []


def test_tokens_are_aligned_and_not_just_counted_off():
    assert aligned([1, 2, 3, 4], [1, 2, 3, 4]) == [True] * 4
    assert aligned([1, 9, 2, 3], [1, 2, 3]) == [True, False, True, True]
    assert aligned([1, 2], [1, 2, 3]) == [True, True] and aligned([], [1]) == []
    assert aligned([7, 8], []) == [False, False]


def test_what_lies_far_behind_the_first_difference_counts_as_different():
    tail = list(range(10, 10 + ALIGNED + 5))
    assert aligned([1, *tail], [2, *tail]) == [False, *[True] * (ALIGNED - 1), *[False] * 6]
    assert all(aligned(tail * 3, tail * 3))
