import re
from dataclasses import replace
from html import unescape
from importlib import import_module

import pandas as pd
import pytest

from rwkvlab.errors import ArgError, Cancelled, MismatchError, PromptError, show
from rwkvlab.measure.comparing.compare import compare
from rwkvlab.measure.comparing.tokens import Answers
from rwkvlab.model.answering import answer_prompts
from rwkvlab.model.engine import load_model
from rwkvlab.states.state import State

SHORT = {"max_tokens": 6, "temperature": 1.0, "top_p": 1.0}


def test_every_arm_gets_what_chat_gives_with_the_same_seed(tiny, random_state):
    states = {"a": random_state("a"), "b": random_state("b", 1)}
    table = compare(tiny, ["hi", "what now?"], states, n=2, seed=5, **SHORT).table
    assert list(table.columns) == ["prompt", "state", "sample", "text", "tokens", "logprob", "finish"]
    assert len(table) == 2 * 3 * 2
    for row in table.itertuples():
        state = None if row.state == "zero" else states[row.state]
        alone = tiny.chat(row.prompt, state, seed=5 + row.sample, **SHORT)
        assert (row.text, row.tokens, row.finish) == (alone.text, len(alone.tokens), alone.finish)
        assert row.logprob == pytest.approx(sum(alone.logprobs), abs=1e-3)


def test_equal_states_answer_equally_and_twice_the_same(tiny, random_state):
    a = random_state("a")
    first = compare(tiny, "hi", [a, a.named("b")], n=3, **SHORT).table
    texts = first.pivot(index="sample", columns="state", values="text")
    assert (texts["a"] == texts["b"]).all() and texts["a"].nunique() > 1
    assert not (texts["a"] == texts["zero"]).all()
    again = compare(tiny, "hi", [a, a.named("b")], n=3, **SHORT).table
    assert first.equals(again)


def test_prompts_may_repeat_and_settings_are_kept(tiny):
    result = compare(tiny, ["hi", "hi"], None, template="raw", seed=3, max_tokens=2)
    assert len(result.table) == 1 and result.template == "raw"
    assert result.settings["seed"] == 3 and result.settings["max_tokens"] == 2
    assert "template raw" in repr(result) and "seed 3" in result._repr_html_()


def test_a_comparison_shows_prompts_down_and_states_across_with_the_reference_pinned(tiny, random_state):
    result = compare(tiny, ["<i>hi</i>", "你好"], [random_state("文言文")], n=2, **SHORT)
    html = result._repr_html_()
    assert html.count("<tr>") == 1 + 4 and '<th class="pinned">zero <small>baseline</small></th><th>文言文</th>' in html
    assert "<i>" not in html and "&lt;i&gt;hi&lt;/i&gt; [1]" in html
    assert repr(result).splitlines()[0].split() == ["zero", "文言文"]


def test_mistakes_are_named(tiny, random_state):
    with pytest.raises(ArgError, match="prompts: empty"):
        compare(tiny, [], [random_state("a")])
    with pytest.raises(ArgError, match="n: need an integer"):
        compare(tiny, "hi", None, n=0)
    with pytest.raises(ArgError, match="template"):
        compare(tiny, "hi", None, template="nope")
    with pytest.raises(MismatchError, match="H=3"):
        compare(tiny, "hi", [State(random_state().wkv[:, [0, 1, 1]])])


def test_a_state_that_is_called_zero_does_not_take_the_place_of_zero(tiny, random_state):
    state = random_state(tiny, 1)
    table = compare(tiny, "ab", {"zero": state}, template="raw", max_tokens=3).table
    assert list(table["state"]) == ["zero", "zero (2)"]


def test_the_baseline_goes_first_and_the_others_are_set_against_it(tiny, random_state):
    states = {"a": random_state("a"), "none": None, "b": random_state("b", 1)}
    for baseline, order in ((None, ["none", "a", "b"]), ("b", ["b", "a", "none"])):
        result = compare(tiny, "hi", states, baseline=baseline, **SHORT)
        assert list(result.table["state"]) == order and result.baseline == order[0]
        assert result.written.query("state == @result.baseline")["same"].all()
        assert not result.written["same"].all()
        assert re.findall(r'<th class="pinned">(\w+) ', result._repr_html_()) == order[:1]
    assert list(compare(tiny, "hi", {"a": states["a"]}, baseline="a", max_tokens=1).table["state"]) == ["a"]
    assert list(compare(tiny, "hi", {"a": states["a"]}, baseline="zero", max_tokens=1).table["state"]) == ["zero", "a"]


@pytest.mark.parametrize("baseline", ["b", 3, "", ["a"]])
def test_a_baseline_that_is_no_arm_is_refused_with_the_arms(tiny, random_state, baseline):
    with pytest.raises(ArgError, match=r"baseline: need one of .*'a'"):
        compare(tiny, "hi", {"a": random_state("a")}, baseline=baseline)


def test_tokens_of_the_baselines_answer_are_not_marked_and_others_are(tiny, random_state):
    result = compare(tiny, "hi", [random_state("a")], template="raw", **SHORT)
    cells = re.findall(r"<td.*?>(.*?)</td>", result._repr_html_(), re.DOTALL)
    marked = unescape("".join(re.findall(r"<mark>(.*?)</mark>", cells[1])))
    rows = result.written.query("state == 'a' and not same")
    assert "<mark>" not in cells[0] and len(rows) and marked
    assert unescape(re.sub("<.*?>", "", cells[1])) == shown(result.table["text"][1])
    assert marked == shown("".join(rows["piece"]))


def shown(text):
    """Return a text of bytes as the grid shows it, but for line ends."""
    return "".join(char if char.isprintable() else show(char)[1:-1] for char in text).replace("\\x09", "⇥")


def test_strips_wait_until_they_are_asked_for_unless_kl_asks(tiny, random_state, monkeypatch):
    reads = []
    read = Answers.read
    monkeypatch.setattr(Answers, "read", lambda self: reads.append(1) or read(self))
    late = compare(tiny, "hi", [random_state("a")], **SHORT)
    assert not reads and "<span" not in late._repr_html_()
    assert late.tokens is late.tokens and len(reads) == 1 and late.reader is None
    assert "<span" in late._repr_html_()
    soon = compare(tiny, "hi", [random_state("a")], kl=True, **SHORT)
    assert len(reads) == 2 and soon._repr_html_() == late._repr_html_() and len(reads) == 2
    assert soon.tokens.equals(late.tokens)


def test_ctrl_c_keeps_the_answers_and_the_strips_can_be_had_later(tiny, random_state, monkeypatch):
    def interrupted(self):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(Answers, "read", interrupted)
        result = compare(tiny, "hi", [random_state("a")], kl=True, **SHORT)
        assert len(result.table) == 2 and "<span" not in result._repr_html_()
    assert result.reader is not None
    result = compare(tiny, "hi", [random_state("a")], **SHORT)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("rwkvlab.measure.comparing.tokens.along", interrupted_along)
        with pytest.raises(KeyboardInterrupt):
            _ = result.tokens
    assert len(result.tokens)


def interrupted_along(*_, **__):
    raise KeyboardInterrupt


def test_writing_that_was_interrupted_gives_what_there_is(tiny, random_state, monkeypatch):
    module = import_module("rwkvlab.measure.comparing.compare")  # the package has a function of this name
    monkeypatch.setattr(module, "ROWS", 3)
    calls = []

    def interrupt(*args, **options):
        calls.append(1)
        done = answer_prompts(*args, **options)
        return [replace(one, finish="interrupted") for one in done] if len(calls) == 2 else done

    monkeypatch.setattr(module, "answer_prompts", interrupt)
    result = compare(tiny, ["a", "b", "c"], [random_state("a")], template="raw", kl=True, **SHORT)
    assert len(result.table) == 6 and len(calls) == 2 and result.reader is not None  # strips would keep one waiting
    monkeypatch.setattr(module, "ROWS", 1)
    calls[:] = [1]
    result = compare(tiny, ["a", "b"], [random_state("a")], template="raw", kl=True, **SHORT)
    assert list(result.table["state"]) == ["zero"] and set(result.tokens["state"]) == {"zero"}
    assert "<td></td>" not in result._repr_html_()  # of an arm without any answer there is no column


def test_a_state_tuned_for_another_template_is_told_once(tiny, random_state):
    state = random_state("own")
    state = state.replace(card=state.card.replace(template="g1"))
    with pytest.warns(UserWarning, match="was tuned for the template 'g1'") as heard:
        compare(tiny, ["a", "b"], [state], template="raw", **SHORT)
    assert len(heard) == 1 and heard[0].filename == __file__


@pytest.mark.parametrize("prompts", [[[1, 2]], None, 5])
def test_prompts_are_texts(tiny, prompts):
    with pytest.raises(ArgError, match="prompts: need"):
        compare(tiny, prompts, [None])


def test_a_prompt_that_cannot_be_asked_is_named_as_it_was_given(tiny, tiny_file, tmp_path):
    for prompts, words in (
        (["a", ""], r"^prompts\[1\]: empty"),
        ("", "^prompts: empty"),
        ([" \n"], r"^prompts\[0\]: empty"),
    ):
        with pytest.raises(PromptError, match=words):
            compare(tiny, prompts, [None])
    with pytest.raises(PromptError, match=r"^prompts\[0\]: empty"):
        compare(tiny, [""], [None], template="raw")
    (tmp_path / "vocab.txt").write_text("1 'a' 1\n2 'b' 1\n")
    model = load_model(tiny_file, tokenizer=tmp_path / "vocab.txt")
    with pytest.raises(PromptError, match=r"^prompts\[1\]: "):
        compare(model, ["ab", "c"], [None], template="raw")


def test_the_reading_for_kl_tells_how_far_it_is_and_can_be_stopped(tiny, random_state, capsys):
    def stop(done, total):
        raise Cancelled("enough")

    arms = {"zero": None, "a": random_state("a"), "b": random_state("b", 1)}
    result, same = (compare(tiny, ["one", "two"], arms, max_tokens=9, top_p=0.9) for _ in range(2))
    with pytest.raises(Cancelled):
        result.read_tokens(stop)
    assert not any("<span" in cell for _, cells in result.rows() for cell in cells)
    seen = []
    read = result.read_tokens(lambda done, total: seen.append(done / total))
    assert seen == sorted(seen) and len(seen) > 6 and seen[-1] == 1.0 and 0 < seen[0] < 0.2
    assert read is result.tokens is result.read_tokens(stop)
    pd.testing.assert_frame_equal(read, same.tokens)
    assert any('<span class="k' in cell for _, cells in result.rows() for cell in cells)
