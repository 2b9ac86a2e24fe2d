"""Generation: what comes out, what is left untouched, and how it stops."""

import math
import signal
import threading

import pytest
import torch

from rwkvlab.errors import ArgError, MismatchError, NonFiniteError, PromptError
from rwkvlab.model.engine import Model
from rwkvlab.model.generate import generate, generate_batch
from rwkvlab.model.random_weights import random_weights
from rwkvlab.model.reading import read_prompts
from rwkvlab.model.vocab import VocabTokenizer
from rwkvlab.model.weights import Checkpoint
from rwkvlab.shapes import Dims
from rwkvlab.states.state import State

LETTERS = "abcdefghijklmnopqrstuvwxyz .,\n"
VOCAB = {i + 1: c.encode() for i, c in enumerate(LETTERS)} | {
    40: b"the ",
    41: b"b\n\nc",
    42: "你".encode()[:2],
    43: b"\xa0",
}
DIMS = Dims("x070", L=2, H=2, C=32, K=16, V=16, ffn=64, vocab=48)
FREE = {"top_p": 1.0, "ban": [0]}


class Scripted(Model):
    """A real model whose next token is dictated: the i-th after the prompt is script[i], whatever it reads."""

    script: tuple[int, ...] = ()
    prompt = 0

    def run(self, tokens, flow, logits="last", way=None):
        out = super().run(tokens, flow, logits, way)
        flow.seen = getattr(flow, "seen", -self.prompt) + tokens.shape[1]
        if out is not None and logits == "last" and self.script:
            out = torch.nn.functional.one_hot(torch.tensor([self.script[flow.seen]] * len(out)), DIMS.vocab) * 50.0
        return out


def build(kind=Model):
    weights = random_weights(DIMS, {"w": 8, "a": 8, "v": 4, "g": 8})
    return kind(Checkpoint(DIMS, weights, "0" * 64), "random", VocabTokenizer("letters", VOCAB))


@pytest.fixture(scope="module")
def model():
    return build()


@pytest.fixture
def scripted():
    """scripted(ids) -> a model that writes these ids after a prompt of one token."""

    def make(ids):
        model = build(Scripted)
        model.script, model.prompt = (*ids, 0), 1
        return model

    return make


@pytest.fixture
def states(model):
    generator = torch.Generator().manual_seed(5)
    shape = model.zero().wkv.shape
    return [State(torch.randn(shape, generator=generator), like=model) for _ in range(4)]


def ids(text):
    return VocabTokenizer("letters", VOCAB).encode(text)


def bits(state):
    return [tensor.clone() for tensor in (state.wkv, state.att_shift, state.ffn_shift)]


def same_state(a, b, tolerance=0.0):
    return all(torch.allclose(x, y, rtol=0, atol=tolerance) for x, y in zip(bits(a), bits(b), strict=True))


def test_the_result_holds_text_tokens_logprobs_and_the_state_after_them(model, states):
    out = generate(model, "hello ", states[0], max_tokens=30, seed=1, temperature=1.3, presence=0.5, **FREE)
    assert (len(out.tokens), len(out.logprobs), out.finish) == (30, 30, "length")
    assert out.text == model.tokenizer.decode(out.tokens)
    after = model.read([*ids("hello "), *out.tokens], states[0])
    assert same_state(out.state, after, 1e-4)
    assert not same_state(out.state, states[0], 1e-4)
    whole = model.forward([*ids("hello "), *out.tokens], states[0]).logits[0].log_softmax(-1)
    given = whole[len(ids("hello ")) - 1 : -1].gather(1, torch.tensor(out.tokens)[:, None])[:, 0]
    torch.testing.assert_close(torch.tensor(out.logprobs), given, rtol=0, atol=1e-4)


def test_greedy_follows_the_largest_logit(model):
    out = generate(model, "abc", max_tokens=12, temperature=0, **FREE)
    text = ids("abc")
    for token in out.tokens:
        logits = model.forward(text, logits="last").logits[0, 0]
        logits[[0, *model.tokenizer.holes(48)]] = -math.inf
        assert token == int(logits.argmax())
        text.append(token)


def test_the_same_seed_gives_the_same_text_and_another_seed_another(model):
    a, b, c = (generate(model, "abc", max_tokens=40, seed=seed, **FREE) for seed in (3, 3, 4))
    assert (a.text, a.logprobs) == (b.text, b.logprobs)
    assert a.text != c.text
    d = generate(model, "abc", max_tokens=40, **FREE)
    assert generate(model, "abc", max_tokens=40, seed=d.sampling.seed, **FREE).text == d.text


def test_a_row_of_a_batch_is_what_it_is_alone(model, states):
    prompts = ["a", "hello", "b", "hello", "the cat."]
    starts = [None, states[0], states[1], states[2], None]
    rows = generate_batch(model, prompts, starts, max_tokens=25, seed=7, stop=["e"], top_p=0.95)
    assert len({len(row.tokens) for row in rows}) > 2  # they end at different times, so that the batch shrinks
    for row, prompt, start in zip(rows, prompts, starts, strict=True):
        alone = generate(model, prompt, start, max_tokens=25, seed=7, stop=["e"], top_p=0.95)
        assert (row.text, row.tokens, row.finish) == (alone.text, alone.tokens, alone.finish)
        assert row.logprobs == pytest.approx(alone.logprobs, abs=1e-4)
        assert same_state(row.state, alone.state, 1e-4)


def test_one_prompt_serves_many_states_and_one_state_many_prompts(model, states):
    many = generate_batch(model, "hello", states, max_tokens=8, seed=0, **FREE)
    assert [out.text for out in many] == [
        generate(model, "hello", state, max_tokens=8, seed=0, **FREE).text for state in states
    ]
    assert len(generate_batch(model, ["a", "b", [1, 2]], states[0], max_tokens=2)) == 3
    named = generate_batch(model, [1, 2], {"x": states[0], "y": states[1]}, max_tokens=2)
    assert len(named) == 2
    with pytest.raises(ArgError, match="3 prompts and 2 states"):
        generate_batch(model, ["a", "b", "c"], states[:2])


def test_seeds_may_be_given_by_row(model):
    rows = generate_batch(model, "abc", [None] * 3, seed=[1, 2, 1], max_tokens=30, **FREE)
    assert rows[0].text == rows[2].text != rows[1].text
    assert [row.sampling.seed for row in rows] == [1, 2, 1]
    with pytest.raises(ArgError, match="seed"):
        generate_batch(model, "abc", [None] * 3, seed=[1, 2])


def test_streamed_pieces_join_to_the_text(model):
    for seed in range(5):
        pieces = []
        out = generate(model, "ab", max_tokens=60, seed=seed, stop=["th", "\n\n"], top_p=1.0, on_text=pieces.append)
        assert "".join(pieces) == out.text
        assert all(pieces)
    rows = {0: "", 1: ""}

    def add(row, piece):
        rows[row] += piece

    both = generate_batch(model, ["ab", "xyz"], max_tokens=30, seed=0, stop=["q"], on_text=add)
    assert [rows[0], rows[1]] == [out.text for out in both]


def test_a_stop_string_over_tokens_ends_the_text_and_the_state_has_read_it(scripted):
    written = [*ids("one the"), 41, *ids("more")]
    pieces = []
    model = scripted(written)
    out = generate(model, "x", stop=["\n\n"], on_text=pieces.append)
    assert (out.text, out.finish) == ("one theb", "stop")
    assert out.tokens == tuple(written[:8])
    assert "".join(pieces) == "one theb"
    assert same_state(out.state, build().read([*ids("x"), *out.tokens]), 1e-5)


def test_a_stop_string_of_single_letters_is_held_back(scripted):
    pieces = []
    out = generate(scripted(ids("abc stop")), "x", stop="stop", on_text=pieces.append)
    assert (out.text, out.finish, "".join(pieces)) == ("abc ", "stop", "abc ")
    assert generate(scripted(ids("abc sto")), "x", stop="stop").text == "abc sto"


def test_end_of_text_ends_it_and_is_not_read(scripted):
    out = generate(scripted([*ids("ab"), 0, *ids("c")]), "x")
    assert (out.text, out.finish, len(out.tokens), len(out.logprobs)) == ("ab", "end", 2, 2)
    assert same_state(out.state, build().read(ids("xab")), 1e-5)
    assert generate(scripted([*ids("ab"), 0, *ids("c")]), "x", ban=[0], max_tokens=4).finish == "length"


def test_a_character_cut_by_tokens_comes_out_whole_or_as_a_mark_at_the_end(scripted):
    pieces = []
    assert generate(scripted([42, 43, 42]), "x", max_tokens=3, on_text=pieces.append).text == "你\ufffd"
    assert pieces == ["你", "\ufffd"]


def test_penalties_spread_the_counts(model):
    def repeats(**penalty):
        out = generate(model, "abc", max_tokens=60, temperature=0, ban=[0], **penalty)
        return max(out.tokens.count(token) for token in out.tokens)

    assert repeats() > repeats(frequency=2.0)
    few = generate(model, "abc", max_tokens=len(VOCAB), temperature=0, ban=[0], presence=100.0)
    assert len(set(few.tokens)) == len(VOCAB)  # a token that was there comes last


def test_ids_without_text_are_never_written(model):
    rows = generate_batch(model, "abc", [None] * 10, seed=range(10), max_tokens=60, temperature=5.0, top_p=1.0)
    assert {token for row in rows for token in row.tokens} <= set(VOCAB)


def test_no_tokens_asked_for_gives_the_state_after_the_prompt(model, states):
    out = generate(model, "hello", states[0], max_tokens=0)
    assert (out.text, out.tokens, out.finish) == ("", (), "length")
    assert same_state(out.state, model.read("hello", states[0]), 1e-5)


def test_generation_goes_on_from_a_state(model, states):
    first = generate(model, "hello", states[1], max_tokens=10, temperature=0, **FREE)
    on = generate(model, "abc", first.state, max_tokens=10, temperature=0, **FREE)
    whole = generate(
        model, [*ids("hello"), *first.tokens, *ids("abc")], states[1], max_tokens=10, temperature=0, **FREE
    )
    assert on.text == whole.text


def test_a_long_prompt_in_segments_is_read_like_one(model):
    long = (ids("the quick brown fox, ") * 80)[:1500]
    logits, flow = read_prompts(model, [long, long[:700]], [None, None], lambda: "")
    torch.testing.assert_close(logits[0], model.forward(long, logits="last").logits[0, 0], rtol=0, atol=1e-3)
    torch.testing.assert_close(logits[1], model.forward(long[:700], logits="last").logits[0, 0], rtol=0, atol=1e-3)
    assert flow.wkv[0].shape[0] == 2


def test_nothing_given_in_is_written_to_and_nothing_leaks(model, states):
    before = [bits(state) for state in states]
    first = generate(model, "abc", states[0], max_tokens=20, seed=1)
    for other in states[1:]:
        generate(model, "xyz", other, max_tokens=9)
        again = generate(model, "abc", states[0], max_tokens=20, seed=1)
        assert (again.text, again.logprobs) == (first.text, first.logprobs)
        assert same_state(again.state, first.state)
    for state, old in zip(states, before, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(bits(state), old, strict=True))


@pytest.mark.parametrize("how", ["signal", "raise", "cancel"])
def test_stopped_in_the_middle_returns_what_there_is_and_harms_nothing(model, states, how):
    old, cancel, pieces = bits(states[0]), threading.Event(), []
    whole = generate(model, "abc", states[0], max_tokens=30, seed=2, **FREE)

    def stop(piece):
        pieces.append(piece)
        if len(pieces) == 10:
            if how == "raise":
                raise KeyboardInterrupt
            cancel.set() if how == "cancel" else signal.raise_signal(signal.SIGINT)

    out = generate(model, "abc", states[0], max_tokens=30, seed=2, on_text=stop, cancel=cancel, **FREE)
    assert out.finish == ("cancelled" if how == "cancel" else "interrupted")
    assert 10 <= len(out.tokens) < 30
    assert out.tokens == whole.tokens[: len(out.tokens)]
    assert "".join(pieces) == out.text
    assert same_state(out.state, model.read([*ids("abc"), *out.tokens], states[0]), 1e-4)
    assert all(torch.equal(x, y) for x, y in zip(bits(states[0]), old, strict=True))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert generate(model, "abc", states[0], max_tokens=30, seed=2, **FREE).text == whole.text


def test_an_interrupt_inside_a_step_leaves_a_whole_state(states):
    class Torn(Model):
        steps = 0

        def run(self, tokens, flow, logits="last", way=None):
            out = super().run(tokens, flow, logits, way)
            Torn.steps += 1
            if Torn.steps == 6:
                flow.wkv[0].fill_(1e9)
                raise KeyboardInterrupt
            return out

    torn = build(Torn)
    old = bits(states[0])
    rows = generate_batch(torn, ["abc", "xyz"], states[:2], max_tokens=30, seed=2, **FREE)
    for row, prompt, start in zip(rows, ("abc", "xyz"), states, strict=False):
        assert (row.finish, len(row.tokens)) == ("interrupted", 5)
        assert same_state(row.state, torn.read([*ids(prompt), *row.tokens], start), 1e-4)
    assert all(torch.equal(x, y) for x, y in zip(bits(states[0]), old, strict=True))


@pytest.mark.parametrize(("times", "finished"), [(1, True), (2, False)])
def test_the_first_interrupt_waits_for_the_step_and_the_second_does_not(times, finished):
    class Pressed(Model):
        steps: tuple[bool, ...] = ()

        def run(self, tokens, flow, logits="last", way=None):
            self.steps = (*self.steps, False)
            if len(self.steps) == 4:
                for _ in range(times):
                    signal.raise_signal(signal.SIGINT)
            out = super().run(tokens, flow, logits, way)
            self.steps = (*self.steps[:-1], True)
            return out

    pressed = build(Pressed)
    out = generate(pressed, "abc", max_tokens=30, seed=2, **FREE)
    assert pressed.steps[3] is finished
    assert (out.finish, len(out.tokens)) == ("interrupted", 3)
    assert same_state(out.state, pressed.read([*ids("abc"), *out.tokens]), 1e-4)


def test_stopped_before_the_first_token_the_state_is_the_start(model, states):
    cancel = threading.Event()
    cancel.set()
    out = generate(model, "abc" * 1000, states[0], cancel=cancel)
    assert (out.text, out.tokens, out.finish) == ("", (), "cancelled")
    assert same_state(out.state, states[0])


def test_cancel_from_another_thread_stops_a_long_job(model):
    cancel = threading.Event()
    timer = threading.Timer(0.3, cancel.set)
    timer.start()
    out = generate(model, "abc", max_tokens=10**6, cancel=cancel, **FREE)
    timer.join()
    assert out.finish == "cancelled"
    assert out.tokens


def test_a_generation_in_another_thread_is_the_same(model):
    results = []
    threads = [
        threading.Thread(target=lambda: results.append(generate(model, "abc", max_tokens=20, seed=4).text))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [generate(model, "abc", max_tokens=20, seed=4).text] * 3


def test_an_error_in_on_text_comes_out_as_it_is(model):
    with pytest.raises(ZeroDivisionError):
        generate(model, "abc", max_tokens=20, seed=4, ban=(0,), on_text=lambda piece: 1 / 0)


@pytest.mark.parametrize("empty", ["", []])
def test_an_empty_prompt_is_refused_with_what_to_do(model, states, empty):
    with pytest.raises(PromptError, match="prompt: empty; give at least one token"):
        generate(model, empty, states[0])


@pytest.mark.parametrize("bad", [[48], [-1], [1.0], [True], 7, None, "ab\ud800", "A", b"ab", [[1], [2]]])
def test_a_bad_prompt_is_refused(model, bad):
    with pytest.raises(PromptError):
        generate(model, bad)


def test_states_that_do_not_fit_are_refused(model):
    with pytest.raises(MismatchError):
        generate(model, "a", State(torch.zeros(3, 2, 16, 16)))
    with pytest.raises(ArgError):
        generate(model, "a", "state")


def test_broken_logits_are_an_error_not_a_token():
    class Broken(Model):
        def run(self, tokens, flow, logits="last", way=None):
            out = super().run(tokens, flow, logits, way)
            return None if out is None else out * math.nan

    with pytest.raises(NonFiniteError, match="row 0 for token 0"):
        generate(build(Broken), "a")


def test_arguments_that_run_out_serve_every_row(model, states):
    two = model.generate_batch(["ab", "ab"], [None, None], max_tokens=3, seed=1, ban=iter([5]), stop=iter(["zzz"]))
    assert two[0].sampling == two[1].sampling
    assert two[0].sampling.ban == (5,)


@pytest.mark.parametrize("bad", [{"on_text": 5}, {"cancel": "x"}, {"seed": "str"}])
def test_arguments_of_another_kind_are_named(model, bad):
    with pytest.raises(ArgError, match=next(iter(bad))):
        model.generate("ab", max_tokens=1, **bad)
