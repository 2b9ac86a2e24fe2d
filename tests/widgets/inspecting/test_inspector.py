import threading
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from IPython.core import getipython

from rwkvlab.errors import ArgError, MismatchError, UnknownNameError
from rwkvlab.measure.influence import influence
from rwkvlab.measure.spectrum import spectrum
from rwkvlab.states.state import State
from rwkvlab.widgets.inspecting.inspector import StateInspector

PATIENCE = 60


def done(widget):
    """Wait until nothing is computed or drawn any more."""
    for _ in range(3):  # what is computed starts a drawing
        assert widget._work.wait(PATIENCE) and widget._drawing.wait(PATIENCE)
    return widget


@pytest.fixture
def notebook(monkeypatch):
    """The variables of a notebook, as IPython holds them."""
    shell = type("Shell", (), {"user_ns": {}})()
    monkeypatch.setattr(getipython, "get_ipython", lambda: shell)
    return shell.user_ns


class Lazy(Mapping):
    """A shelf that reads each state when it is asked for, as files do."""

    def __init__(self, states):
        self.states = states

    def __getitem__(self, name):
        state = self.states[name]
        if isinstance(state, Exception):
            raise state
        return state.replace()

    def __iter__(self):
        return iter(self.states)

    def __len__(self):
        return len(self.states)


@pytest.fixture
def shelf(random_state):
    return Lazy({"emoji": random_state("emoji"), "文言文'": random_state("文言文'", seed=1)})


def test_the_caption_says_what_is_known_of_the_chosen_head(random_state):
    one = random_state("emoji")
    widget = done(StateInspector(one, at=(1, 0)))
    row = spectrum(one).set_index(["layer", "head"]).loc[(1, 0)]
    text = widget._caption.text
    assert text.startswith("layer 1, head 0\nemoji: ") and not widget._caption.trouble
    assert f"norm {row['norm']:.3g}," in text and f"effective rank {row['effective_rank']:.3g} of 16" in text
    widget.selected = (0, 1)
    done(widget)
    assert widget._caption.text.startswith("layer 0, head 1\n") and widget._picture.alt.endswith("layer 0, head 1")
    assert "<img" in widget._picture.value


def test_the_choice_goes_both_ways_and_a_wrong_one_is_refused(random_state):
    widget = StateInspector(random_state())
    seen = []
    widget.observe(lambda change: seen.append(change["new"]), "selected")
    widget.grid.selected = (1, 1)
    widget.selected = (0, 1)
    assert seen == [(1, 1), (0, 1)] and widget.grid.selected == (0, 1)
    for wrong in ((2, 0), "01", None, (0, 0.5)):
        with pytest.raises(ArgError, match="selected"):
            widget.selected = wrong
    assert widget.selected == widget.grid.selected == (0, 1)


def test_two_states_are_told_with_their_difference(random_state):
    one, two = random_state("a"), random_state("b", seed=1)
    widget = done(StateInspector(one, two, at=(1, 1)))
    norm = float((two.wkv - one.wkv)[1, 1].norm())
    assert f"\ndifference: norm {norm:.3g}, relative " in widget._caption.text
    assert "\na: norm" in widget._caption.text and "\nb: norm" in widget._caption.text
    widget.other = None
    assert len(widget.grid.states) == 1 and "difference" not in done(widget)._caption.text
    widget.other = one  # the same beside itself
    assert "a (first): norm" in done(widget)._caption.text


def test_states_that_do_not_fit_are_refused_and_nothing_changes(tiny, random_state):
    one, small = random_state("a"), State(torch.randn(1, 2, 16, 16)).named("small")
    with pytest.raises(MismatchError, match="L=1"):
        StateInspector(small, model=tiny)
    with pytest.raises(MismatchError, match="shapes differ"):
        StateInspector(one, small)
    widget = StateInspector(one, one)
    for wrong, error in ((small, MismatchError), (None, ArgError), ("emoji", ArgError), (3, ArgError)):
        with pytest.raises(error):
            widget.state = wrong
    with pytest.raises(MismatchError):
        widget.show(small, one)
    assert widget.state is one and widget.other is one and widget.grid.states[0] is one
    widget.show(small)
    assert widget.state is small and widget.other is None and widget.selected == (0, 0)


def test_states_are_chosen_by_name_in_python_and_from_the_menus(shelf):
    widget = StateInspector("emoji", shelf=shelf, at=(1, 0))
    assert torch.equal(widget.state.wkv, shelf["emoji"].wkv) and widget._menus[0].value == "emoji"
    widget._menus[1].value = "文言文'"  # as a person does
    assert torch.equal(widget.other.wkv, shelf["文言文'"].wkv) and len(widget.grid.states) == 3
    widget.state = "文言文'"
    assert widget._menus[0].value == "文言文'"
    widget._menus[1].value = ""
    assert widget.other is None and widget.selected == (1, 0)
    with pytest.raises(UnknownNameError, match="emoji"):
        widget.state = "nobody"
    with pytest.raises(ArgError, match="shelf="):
        StateInspector("emoji")
    with pytest.raises(ArgError, match="shelf"):
        StateInspector(widget.state, shelf=3)


def test_a_state_that_cannot_be_read_is_told_and_the_view_stays(random_state):
    bad = "<img src=x onerror=alert(1)> cannot be read"
    widget = done(StateInspector("good", shelf=Lazy({"good": random_state(), "bad": OSError(bad)})))
    before = widget.state
    widget._menus[0].value = "bad"
    assert widget._caption.trouble and "cannot be read" in widget._caption.text and "<img" not in widget._caption.value
    assert widget.state is before and widget._menus[0].value == "good"


def test_the_code_makes_the_same_view(tiny, shelf, notebook):
    import rwkvlab as lab

    face = type("lab", (), {"widgets": type("w", (), {"StateInspector": StateInspector}), "load_state": lab.load_state})
    widget = StateInspector("emoji", "文言文'", model=tiny, shelf=shelf, at=(1, 0), text="one two three four five six")
    widget.selected, widget.overview, widget.difference = (0, 1), "stable_rank", "cosine"
    assert widget._code.code == widget.code
    again = eval(widget.code, {"lab": face, "model": tiny, "shelf": shelf})
    assert again.code == widget.code and again.selected == (0, 1) and again.overview == "stable_rank"
    assert torch.equal(again.other.wkv, widget.other.wkv) and again.text == widget.text
    for one in (widget, again):
        done(one).close()
    plain = StateInspector(shelf["emoji"], shelf=shelf, at=(1, 1))
    assert plain.code == "lab.widgets.StateInspector(shelf['emoji'], shelf=shelf, at=(1, 1))"
    notebook["mine"] = plain.state
    assert StateInspector(plain.state).code == "lab.widgets.StateInspector(mine, at=(0, 0))"


def test_hostile_names_are_shown_and_do_nothing(random_state):
    hostile = "<script>x\x1b[3m\\(x\\)\u202e$ 你好"
    name = hostile + "'\""
    widget = done(StateInspector(name, shelf=Lazy({name: random_state(hostile)})))
    for text in (widget._caption.value, widget._picture.value):
        assert "<script" not in text and "\x1b" not in text and "\u202e" not in text
    assert "你好" in widget._caption.value and not widget._caption.trouble
    assert "\u202e" not in str(widget._menus[0].options[0][0]) and "\x1b" not in widget.code


def test_maps_show_what_was_asked_for(random_state):
    one, two = random_state("a"), random_state("b", seed=1)
    widget = StateInspector(one, two)
    widget.overview, widget.difference = "effective_rank", "key_angle"
    assert done(widget)._work.error is None
    shown = np.frombuffer(widget.grid._maps["data"], dtype=np.float32).reshape(3, 2, 2)
    assert np.allclose(shown[1].ravel(), spectrum(two)["effective_rank"])
    assert widget.grid._maps["maps"][2]["what"].startswith("mean angle of the key")
    widget.overview = widget.difference = "norm"
    shown = np.frombuffer(done(widget).grid._maps["data"], dtype=np.float32).reshape(3, 2, 2)
    assert np.allclose(shown[0], one.wkv.flatten(2).norm(dim=2))
    with pytest.raises(ArgError, match="overview: need one of norm"):
        widget.overview = "beauty"
    with pytest.raises(ArgError, match="needs a model"):
        widget.overview = "half_life"


def test_with_a_model_it_is_told_how_long_a_head_lasts(tiny, random_state):
    one, text = random_state("a"), "the quick brown fox jumps over the lazy dog"
    widget = done(StateInspector(one, model=tiny, text=text, at=(1, 1)))
    assert widget._work.error is None
    want = influence(tiny, text, one).half_life.set_index(["layer", "head"]).loc[(1, 1), "half_life"]
    said = "more than half of it is left" if np.isinf(want) else f"half of it is gone after {want:g} tokens"
    assert said in widget._caption.text and widget._picture.alt.endswith("how long it lasts")
    widget.overview = "half_life"
    assert done(widget).grid._maps["maps"][0]["what"] == "half-life (tokens)"
    widget.measure("another text, a little longer than the one before, to be read again")
    assert done(widget).text.startswith("another") and widget.numbers.lasting[one].tokens != len(text)


def test_without_a_model_it_says_that_one_is_needed(random_state):
    widget = StateInspector(random_state())
    assert any("with a model" in getattr(child, "text", "") for child in widget.children)


def test_a_failure_is_shown_and_the_widget_goes_on(tiny, random_state):
    widget = done(StateInspector(random_state() * 0, model=tiny))
    assert isinstance(widget._work.error, ArgError) and "all zeros" in widget._work.caption.text
    assert "norm 0" in widget._caption.text
    widget.show(random_state())
    assert done(widget)._work.error is None and "norm 0," not in widget._caption.text


def test_a_state_with_nan_is_shown(random_state):
    wkv = random_state().wkv.clone()
    wkv[0, 0, 1, 2] = torch.nan
    widget = done(StateInspector(State(wkv)))
    assert "norm nan" in widget._caption.text and "1 NaN" in widget.grid._head["parts"][0]["note"]


def test_a_thousand_fast_choices_end_with_the_last_and_one_thread(random_state):
    widget = done(StateInspector(random_state("a")))
    others = set(threading.enumerate())
    for at in range(1000):
        widget.selected = (at % 2, at // 2 % 2)
        assert len(set(threading.enumerate()) - others) <= 1
    widget.selected = (1, 0)
    done(widget)
    assert widget.grid._head["at"] == [1, 0] and widget._caption.text.startswith("layer 1, head 0\n")
    assert widget._picture.alt == "singular values of layer 1, head 0"
    assert not set(threading.enumerate()) - others


def test_a_saved_notebook_keeps_a_picture(random_state):
    data = StateInspector(random_state("a"))._repr_mimebundle_()
    assert len(data["image/png"]) > 1000


def test_a_head_that_is_not_square_is_drawn():
    one = State(torch.randn(2, 3, 8, 20)).named("wide")
    assert "of 8" in done(StateInspector(one, at=(1, 2)))._caption.text
