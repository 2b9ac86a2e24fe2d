"""What a voice says is what a chat from its state gives, in every template, alone and beside others."""

import numpy as np
import pytest
import torch

from rwkvlab.bundled.shelf import bundled
from rwkvlab.errors import MismatchError, NonFiniteError, PromptError
from rwkvlab.measure.sweeps.mixture import Voice, listen
from rwkvlab.model.chat import chat_batch
from rwkvlab.states.state import State
from rwkvlab.tasks.templates import Template, get_template

TEMPLATES = [
    get_template("raw"),
    get_template("world"),
    Template("stops", "{question}>", stop=("c", "b")),
    Template("long stop", "{question}>", lead="d", stop=("ab",), clean=True),
    Template("untouched", "{question}>", lead="x", stop=("zz",), clean=False),
]


@pytest.fixture(scope="module")
def micro():
    model, shelf = bundled()
    return model, [shelf["copy"], shelf["reverse"], shelf["sort"], model.zero()]


@pytest.mark.parametrize("form", TEMPLATES, ids=lambda form: form.name)
@pytest.mark.filterwarnings("ignore:state .* was tuned for")
def test_what_is_said_is_what_the_chat_says(micro, form):
    model, states = micro
    questions = {question: ["x"] for question in ("dcab", "dabc", "xabz", "abab", "kcba")}
    heard = listen(model, form, questions, states, [Voice(at) for at in range(4)], 6)
    for question, one in zip(questions, heard, strict=True):
        said = chat_batch(
            model, [question] * 4, states, template=form, max_tokens=6, temperature=0, top_p=1, presence=0, frequency=0
        )
        assert one.said == [answer.text for answer in said]
        assert one.logprob.shape == one.kl.shape == (4, 1)
        # the first of the states is what the others are set against
        assert one.kl[0, 0] == 0 and (one.kl[1:] > 0).all()
    assert len({text for one in heard for text in one.said}) > 4


def test_voices_and_questions_may_come_in_any_order(micro):
    model, states = micro
    voices = [Voice(2), Voice(0, 2, 0.5), Voice(1), Voice(2, 1, 0.25), Voice(0)]
    questions = {"dcab": ["abcd", "bacd", "a"], "kcba": ["abck"], "xyza": ["zz", "axyz"]}
    whole = listen(model, get_template("raw"), {f"{q}>": a for q, a in questions.items()}, states, voices, 8)
    for question, one in reversed(list(zip(questions, whole, strict=True))):
        for at, voice in enumerate(voices):
            (alone,) = listen(model, get_template("raw"), {f"{question}>": questions[question]}, states, [voice], 8)
            assert one.said[at] == alone.said[0]
            np.testing.assert_allclose(one.logprob[at], alone.logprob[0], atol=1e-4)
            np.testing.assert_allclose(one.kl[at], alone.kl[0], atol=1e-4)


def test_a_mix_goes_on_alone_when_another_has_ended(micro):
    model, states = micro
    shares = [0.0, 1.0, 0.0, 1.0]
    for first, second in ((1, 2), (2, 1)):
        voices = [*(Voice(first, second, t) for t in shares), Voice(first), Voice(second)]
        (heard,) = listen(model, TEMPLATES[2], {"cxyz": ["x"]}, states, voices, 6)
        assert sorted(map(len, heard.said[4:])) == [0, 3]
        assert heard.said[:4] == [heard.said[4 + int(t)] for t in shares]
        np.testing.assert_allclose(heard.logprob[:4], heard.logprob[[4, 5, 4, 5]], atol=1e-9)


def test_nothing_is_written_where_no_token_is_allowed_one_is_where_one_is(micro):
    model, states = micro
    form = get_template("raw")
    (heard,) = listen(model, form, {"abcd>": ["dcba"]}, states, [Voice(1)], 0)
    assert heard.said == [""]
    (heard,) = listen(model, form, {"abcd>": ["dcba"]}, states, [Voice(1)], 1)
    assert heard.said == ["d"]


def test_broken_states_and_questions_are_named(micro):
    model, states = micro
    wkv = states[0].wkv.clone()
    wkv[0, 0] = torch.nan
    raw = get_template("raw")
    for call, error, words in (
        (lambda: listen(model, raw, {"a": ["b"]}, [states[0].replace(wkv=wkv)], [Voice(0)], 4), NonFiniteError, "NaN"),
        (
            lambda: listen(model, raw, {"a": ["b"]}, [State(torch.zeros(1, 1, 2, 2))], [Voice(0)], 4),
            MismatchError,
            "L=",
        ),
        (lambda: listen(model, get_template("world"), {" ": ["b"]}, states, [Voice(0)], 4), PromptError, "empty"),
    ):
        with pytest.raises(error, match=words):
            call()
