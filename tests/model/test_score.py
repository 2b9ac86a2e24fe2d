"""Scores against the model's own logits, in any shape of prompts, answers and states."""

import pytest
import torch

from rwkvlab.errors import ArgError, MismatchError, NonFiniteError, PromptError
from rwkvlab.model import score as score_module
from rwkvlab.model.engine import Model
from rwkvlab.model.random_weights import random_weights
from rwkvlab.model.score import score
from rwkvlab.model.weights import Checkpoint
from rwkvlab.shapes import Dims
from rwkvlab.states.state import State

DIMS = Dims("x060", L=2, H=2, C=16, K=8, V=8, ffn=32, vocab=257)


@pytest.fixture(scope="module")
def model():
    return Model(Checkpoint(DIMS, random_weights(DIMS, {"maa": 4, "decay": 4}), "0" * 64), "random")


@pytest.fixture
def states(model):
    generator = torch.Generator().manual_seed(1)
    shape = model.zero().wkv.shape
    return {name: State(torch.randn(shape, generator=generator), like=model).named(name) for name in ("one", "two")}


def truth(model, prompt, answer, state):
    prompt, answer = (x if isinstance(x, list) else model.tokenizer.encode(x) for x in (prompt, answer))
    logits = model.forward([*prompt, *answer], state).logits[0].double().log_softmax(-1)
    return sum(float(logits[len(prompt) - 1 + i, token]) for i, token in enumerate(answer))


def test_every_answer_of_every_prompt_from_every_state_is_scored(model, states):
    prompts = ["2+2=", "colour: ", "x"]
    answers = [["4", "5", "four"], "grey", [[66, 67], "yes"]]
    table = score(model, prompts, answers, states)
    assert list(table.columns) == [
        "prompt", "answer", "state", "prompt_text", "answer_text", "tokens", "logprob", "logprob_per_token",
    ]  # fmt: skip
    assert len(table) == 2 * 6
    assert table.state.tolist() == ["one"] * 6 + ["two"] * 6
    assert table.prompt.tolist() == [0, 0, 0, 1, 2, 2] * 2
    assert table.answer.tolist() == [0, 1, 2, 0, 0, 1] * 2
    for row in table.itertuples():
        answer = row.answer_text if isinstance(row.answer_text, str) else [66, 67]
        want = truth(model, prompts[row.prompt], answer, states[row.state])
        assert row.logprob == pytest.approx(want, abs=1e-4)
        assert row.logprob_per_token == pytest.approx(want / row.tokens, abs=1e-4)
    assert table.prompt_text[0] == "2+2="
    assert table.tokens.tolist()[:6] == [1, 1, 4, 4, 2, 3]


def test_one_prompt_takes_a_list_of_candidates(model, states):
    table = score(model, "2+2=", ["4", "5"], states["one"])
    assert table.answer_text.tolist() == ["4", "5"]
    assert table.logprob[1] == pytest.approx(truth(model, "2+2=", "5", states["one"]), abs=1e-4)


def test_states_are_named_by_key_card_or_place(model, states):
    listed = [None, states["one"], states["two"].named("")]
    assert score(model, "a", "b", listed).state.tolist() == ["zero", "one", "state 2"]
    assert score(model, "a", "b").state.tolist() == ["zero"]
    assert score(model, "a", "b", states["two"]).state.tolist() == ["two"]
    assert score(model, "a", "b", {"key": states["one"]}).state.tolist() == ["key"]


def test_small_blocks_give_the_same_scores(model, states, monkeypatch):
    prompts, answers = ["a", "bc", "de"], ["xyz" * 9, "xy", ["xyz" * 9, "q"]]
    whole = score(model, prompts, answers, states)
    monkeypatch.setattr(score_module, "ROWS", 2)
    monkeypatch.setattr(score_module, "LOGITS", 257 * 5)
    pieces = score(model, prompts, answers, states)
    assert pieces.drop(columns=["logprob", "logprob_per_token"]).equals(
        whole.drop(columns=["logprob", "logprob_per_token"])
    )
    assert pieces.logprob.tolist() == pytest.approx(whole.logprob.tolist(), abs=1e-4)


def test_states_are_not_written_to(model, states):
    before = {name: state.wkv.clone() for name, state in states.items()}
    score(model, ["a", "bc"], ["xyz", "q"], states)
    assert all(torch.equal(states[name].wkv, before[name]) for name in states)


@pytest.mark.parametrize(
    ("prompts", "answers", "error"),
    [
        ("", "a", PromptError),
        ("a", "", PromptError),
        (["a", ""], ["b", "b"], PromptError),
        (["a", "b"], ["c"], ArgError),
        (["a", "b"], [["c"], []], ArgError),
        ([[300]], ["a"], PromptError),
        ([], [], ArgError),
        (None, "a", PromptError),
    ],
)
def test_prompts_and_answers_that_do_not_match_are_refused(model, prompts, answers, error):
    with pytest.raises(error):
        score(model, prompts, answers)


def test_what_is_no_state_of_this_model_is_refused(model):
    for wrong in ("state", [1], [], {}):
        with pytest.raises(ArgError):
            score(model, "a", "b", wrong)
    with pytest.raises(MismatchError):
        score(model, "a", "b", State(torch.zeros(1, 2, 8, 8)))


def test_broken_logits_are_an_error(model):
    broken = Model(Checkpoint(DIMS, random_weights(DIMS, {"maa": 4, "decay": 4}), "0" * 64), "random")
    broken.run = lambda *args: None if (out := Model.run(broken, *args)) is None else out * float("nan")
    with pytest.raises(NonFiniteError):
        score(broken, "a", "bc")
