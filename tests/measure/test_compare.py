import pytest

from rwkvlab.errors import ArgError, MismatchError
from rwkvlab.measure.compare import compare
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
    assert html.count("<tr>") == 1 + 4 and '<th class="pinned">zero</th><th>文言文</th>' in html
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


@pytest.mark.parametrize("prompts", [[[1, 2]], None, 5])
def test_prompts_are_texts(tiny, prompts):
    with pytest.raises(ArgError, match="prompts: need"):
        compare(tiny, prompts, [None])
