"""A widget that is closed, or that could not be made, leaves nothing behind: no part of it, and no model."""

import gc
import weakref

import ipywidgets
import pytest
from ipywidgets.widgets.widget import _instances
from traitlets import TraitError

import rwkvlab as lab
from rwkvlab.errors import RwkvLabError

PAIRS = [("abc>", "cba")] * 4


def played(model, shelf):
    widget = lab.widgets.Playground(model, shelf, sampling={"max_tokens": 3})
    for count in (1, 3, 2):
        widget.columns = list(shelf)[:count]
    widget.ask("abcd>").wait(60)
    widget.new_chat()
    return widget


def tuned(model, shelf):
    widget = lab.widgets.TunePanel(model, PAIRS, steps=2, batch=2)
    widget.start()
    widget.wait(60)
    return widget


def mixed(model, shelf):
    widget = lab.widgets.StateMixer(shelf, model, prompt="abcd>", max_tokens=3)
    for count in (3, 1, 2):
        widget.recipe = {"weights": dict.fromkeys(list(shelf)[:count], 1 / count), "method": "mix"}
    widget.work.wait(60)
    return widget


def inspected(model, shelf):
    first, second = list(shelf)[:2]
    widget = lab.widgets.StateInspector(first, model=model, shelf=shelf, text="abcd>")
    widget.state = second
    widget._work.wait(60)
    widget._drawing.wait(60)
    return widget


def picked(model, shelf):
    widget = lab.widgets.StatePicker(shelf, model)
    widget.name = list(shelf)[-1]
    return widget


MADE = pytest.mark.parametrize("make", [played, tuned, mixed, inspected, picked])


@MADE
def test_closed_it_leaves_neither_parts_nor_the_model(make):
    def once():
        model, shelf = lab.bundled("micro")
        widget = make(model, shelf)
        seen = weakref.ref(model._weights.emb), weakref.ref(widget)
        widget.close()
        return seen

    before = set(_instances)
    seen = once()
    gc.collect()
    kept = [widget for key, widget in _instances.items() if key not in before]
    assert [type(one) for one in kept] == [ipywidgets.Layout]  # its own, which could be somebody else's
    kept[0].close()
    assert [one() for one in seen] == [None, None]


@MADE
def test_closed_twice_or_with_work_under_way_it_is_quiet(make):
    model, shelf = lab.bundled("micro")
    widget = make(model, shelf)
    if isinstance(widget, lab.widgets.Playground):
        widget.sampling = {"max_tokens": 2000}
        widget.ask("abcd>")
    widget.close()
    widget.close()


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("Playground", {"columns": ["nope"]}),
        ("StateMixer", {"names": ["nope"]}),
        ("TunePanel", {"template": "nope"}),
        ("StatePicker", {"name": "nope"}),
        ("StateInspector", {"overview": "nope"}),
    ],
)
def test_what_could_not_be_made_leaves_nothing(name, wrong):
    model, shelf = lab.bundled("micro")
    given = {"StateInspector": [shelf["copy"]], "TunePanel": [model], "Playground": [model, shelf]}.get(name, [shelf])
    before = set(_instances)
    with pytest.raises((RwkvLabError, TraitError)):
        getattr(lab.widgets, name)(*given, **wrong)
    left = [type(widget) for key, widget in _instances.items() if key not in before]
    assert left in ([], [ipywidgets.Layout])


def test_an_open_widget_does_not_grow_with_use():
    model, shelf = lab.bundled("micro")
    names, counts = list(shelf), []
    playground, mixer = lab.widgets.Playground(model, shelf), lab.widgets.StateMixer(shelf, model)
    inspector = lab.widgets.StateInspector(names[0], shelf=shelf)
    for _ in range(3):
        for count in (1, 3, 2):
            playground.columns = names[:count]
            mixer.recipe = {"weights": dict.fromkeys(names[:count], 1 / count), "method": "mix"}
            inspector.state = names[count]
        counts.append((len(_instances), len(inspector._given._names)))
    assert counts[0][1] == 1 and len(set(counts)) == 1
    for widget in (playground, mixer, inspector):
        widget.close()
