"""Chat: the prompt that is really read, the answer that is given, turns, and switching the state in the middle."""

import threading

import pytest
import torch

from rwkvlab.errors import ArgError, Cancelled, MismatchError, PromptError
from rwkvlab.model.chat import Conversation, ask_together, chat, chat_batch, choose_template
from rwkvlab.model.engine import Model
from rwkvlab.model.random_weights import random_weights
from rwkvlab.model.tokenizer import load_tokenizer
from rwkvlab.model.weights import Checkpoint
from rwkvlab.shapes import Dims
from rwkvlab.states.card import StateCard
from rwkvlab.states.state import State
from rwkvlab.tasks.templates import Template

DIMS = Dims("x070", L=2, H=2, C=16, K=8, V=8, ffn=32, vocab=257)
BYTES = load_tokenizer("bytes", 257)
ids = BYTES.encode


class Scripted(Model):
    """A real model that says the lines it is given, one a question, whatever it reads."""

    def say(self, *lines):
        self.lines = [line if isinstance(line, list) else [*ids(line), 0] for line in lines]
        self.line = None
        return self

    def run(self, tokens, flow, logits="last", way=None):
        out = super().run(tokens, flow, logits, way)
        if out is None or logits != "last" or not hasattr(self, "lines"):
            return out
        if self.line is None or tokens.shape[1] > 1:
            self.line = list(self.lines.pop(0))
        return torch.nn.functional.one_hot(torch.tensor([self.line.pop(0)]), DIMS.vocab) * 50.0


@pytest.fixture(scope="module")
def model():
    return Model(Checkpoint(DIMS, random_weights(DIMS, {"w": 4, "a": 4, "v": 2, "g": 4}), "0" * 64), "random")


@pytest.fixture
def scripted():
    return Scripted(Checkpoint(DIMS, random_weights(DIMS, {"w": 4, "a": 4, "v": 2, "g": 4}), "0" * 64), "random")


@pytest.fixture
def state(model):
    shape = model.zero().wkv.shape
    return State(torch.randn(shape, generator=torch.Generator().manual_seed(0)), like=model)


def close(a, b):
    return torch.allclose(a.wkv, b.wkv, rtol=0, atol=1e-4) and torch.allclose(
        a.ffn_shift, b.ffn_shift, rtol=0, atol=1e-4
    )


def test_a_question_is_asked_in_the_template_and_the_answer_trimmed(scripted, model, state):
    pieces = []
    out = chat(scripted.say(" It is 4.\n\nUser: no"), "What is\r\n\r\n2+2? ", state, on_text=pieces.append)
    assert (out.text, out.finish, out.template) == ("It is 4.", "stop", "world")
    assert "".join(pieces) == "It is 4."
    assert close(out.state, model.read("User: What is\n2+2?\n\nAssistant: It is 4.\n\n", state))
    assert (out.sampling.top_p, out.sampling.presence, out.sampling.stop) == (0.2, 0.3, ("\n\n",))


def test_thoughts_stay_in_the_answer_of_a_thinking_template(scripted, model):
    out = chat(scripted.say(">hm\n\nwell</think>\nYes.\n\nUser: x"), "ok?", template="g1")
    assert (out.text, out.template) == ("hm\n\nwell</think>\nYes.", "g1")
    assert close(out.state, model.read("User: ok?\n\nAssistant: <think>hm\n\nwell</think>\nYes.\n\nUser:"))
    assert chat(scripted.say(">\nYes."), "ok?", template="g1-fast").text == "Yes."


def test_raw_leaves_question_and_answer_as_they_are(scripted, model):
    out = chat(scripted.say(" a\n\nb \n"), "q>\n\n", template="raw")
    assert (out.text, out.finish) == (" a\n\nb \n", "end")
    assert close(out.state, model.read("q>\n\n a\n\nb \n"))


def test_a_template_of_ones_own_and_other_stops_are_used(scripted):
    mine = Template("mine", "Q: {question}\nA:", stop=("\n",))
    assert chat(scripted.say(" one\ntwo"), "x", template=mine).text == "one"
    assert chat(scripted.say(" one\ntwo!"), "x", template=mine, stop=["!"]).text == "one\ntwo"
    assert chat(scripted.say(" one\ntwo!"), "x", template=mine, stop=()).text == "one\ntwo!"


def test_streaming_gives_the_trimmed_text_in_every_row(model, state):
    rows = ["", "", ""]

    def add(row, piece):
        rows[row] += piece

    out = chat_batch(model, ["a", "b", "c"], [None, state, None], seed=1, top_p=1.0, max_tokens=40, on_text=add)
    assert rows == [one.text for one in out]
    alone = chat(model, "b", state, seed=1, top_p=1.0, max_tokens=40)
    assert (out[1].text, out[1].tokens) == (alone.text, alone.tokens)


def test_the_template_of_the_card_is_followed_or_warned_about(scripted, state):
    tuned = state.replace(card=StateCard(name="poems", template="raw"))
    assert choose_template("auto", [None, tuned]).name == "raw"
    assert choose_template("auto", [state]).name == "world"
    with pytest.warns(UserWarning, match="'poems' was tuned for the template 'raw'"):
        out = chat(scripted.say(" hi"), "x", tuned)
    assert out.template == "world"
    assert chat(scripted.say(" hi"), "x", tuned, template="auto").template == "raw"


def test_bad_questions_and_templates_are_refused(model):
    for bad in ("", "  \n", 7, None, b"x"):
        with pytest.raises((PromptError, ArgError)):
            chat(model, bad)
    with pytest.raises(ArgError, match="template: need a Template or one of"):
        chat(model, "x", template="chatml")


def test_a_conversation_reads_each_turn_once_and_separates_them(scripted, model, state):
    talk = Conversation(scripted.say(" One.\n\n", " Two.", " Three.\n\n", " Four."), state, seed=0)
    answers = [talk.ask(question).text for question in ("a", "b", "c", "d")]
    assert answers == ["One.", "Two.", "Three.", "Four."]
    assert [(turn.question, turn.answer) for turn in talk.turns] == list(zip("abcd", answers, strict=True))
    whole = (
        "User: a\n\nAssistant: One.\n\nUser: b\n\nAssistant: Two.\n\n"
        "User: c\n\nAssistant: Three.\n\nUser: d\n\nAssistant: Four."
    )
    assert BYTES.decode([token for turn in talk.turns for token in turn.tokens]) == whole
    assert close(talk.state, model.read(whole, state))


def test_half_a_separator_is_completed(scripted):
    talk = Conversation(scripted.say(" One\n", " Two"))
    talk.ask("a", max_tokens=5)
    talk.ask("b")
    assert BYTES.decode([t for turn in talk.turns for t in turn.tokens]).startswith(
        "User: a\n\nAssistant: One\n\nUser: b"
    )


def test_what_an_answer_wrote_beyond_the_separator_is_not_kept(scripted, model, state):
    talk = Conversation(scripted.say(">x</think>\nYes\n\nUser: b", ">y</think>No"), state, template="g1")
    first = talk.ask("a")
    whole = "User: a\n\nAssistant: <think>x</think>\nYes\n\n"
    assert BYTES.decode(talk.turns[0].tokens) == whole
    assert close(first.state, model.read(whole, state))
    talk.ask("b")
    assert BYTES.decode(talk.turns[1].tokens).startswith("User: b\n\nAssistant: <think>y")


def test_switching_reads_the_conversation_again_from_the_new_start(model, state):
    talk = Conversation(model, None, seed=3, max_tokens=12)
    talk.ask("a")
    talk.ask("b")
    turns, old = talk.turns, talk.state
    switched = talk.switch(state)
    tokens = [token for turn in turns for token in turn.tokens]
    assert close(switched, model.read(tokens, state))
    assert not close(switched, old)
    assert talk.turns is turns
    direct = chat(model, "c", model.read(tokens, state), seed=3, max_tokens=12, template=_gap(talk))
    assert talk.ask("c").text == direct.text
    talk.switch(None)
    assert close(talk.state, model.read([t for turn in talk.turns for t in turn.tokens]))


def _gap(talk):
    text = BYTES.decode(talk.turns[-1].tokens)
    gap = "" if text.endswith("\n\n") else "\n" if text.endswith("\n") else "\n\n"
    return Template("t", gap + "User: {question}\n\nAssistant:", lead=" ", stop=("\n\n",), separator="\n\n")


def test_switching_to_a_state_that_does_not_fit_changes_nothing(model, state):
    talk = Conversation(model, state, max_tokens=3)
    talk.ask("a")
    before = talk.state
    with pytest.raises(MismatchError):
        talk.switch(State(torch.zeros(1, 2, 8, 8)))
    with pytest.raises(ArgError):
        talk.switch("state")
    assert talk.state is before


def test_a_turn_that_was_stopped_at_once_is_not_kept(model, state):
    talk, cancel = Conversation(model, state), threading.Event()
    cancel.set()
    assert talk.ask("a", cancel=cancel).finish == "cancelled"
    assert talk.turns == ()
    assert talk.state is state


def test_a_turn_that_was_stopped_later_is_kept_as_far_as_it_went(scripted, model):
    talk, cancel = Conversation(scripted.say(" one two"), None), threading.Event()
    out = talk.ask("a", cancel=cancel, on_text=lambda piece: cancel.set() if piece == "e" else None)
    assert (out.text, out.finish) == ("one", "cancelled")
    assert close(talk.state, model.read("User: a\n\nAssistant: one"))


def test_conversations_asked_together_are_those_asked_alone(model, state):
    def talks():
        return [Conversation(model, start, seed=2, max_tokens=20, top_p=0.9) for start in (None, state, None)]

    together, alone, pieces = talks(), talks(), ["", "", ""]

    def add(row, piece):
        pieces[row] += piece

    for question in ("a", "b"):
        pieces[:] = [""] * 3
        out = ask_together(together, question, on_text=add)
        assert [one.text for one in out] == [talk.ask(question).text for talk in alone] == pieces
    assert [talk.turns for talk in together] == [talk.turns for talk in alone]
    assert all(close(a.state, b.state) for a, b in zip(together, alone, strict=True))
    with pytest.raises(ArgError, match="one template"):
        ask_together([together[0], Conversation(model, template="raw")], "c")


def test_a_switch_that_is_stopped_changes_nothing(model, state):
    talk, cancel = Conversation(model, None, max_tokens=3), threading.Event()
    talk.ask("a")
    before = talk.state
    cancel.set()
    with pytest.raises(Cancelled):
        talk.switch(state, cancel=cancel)
    assert talk.state is before
