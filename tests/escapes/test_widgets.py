"""Every widget, with hostile names, cards, prompts, answers and errors: a text adds no element, formula or style."""

import importlib
import inspect
import pkgutil
from functools import lru_cache
from pathlib import Path

import ipywidgets
import pytest
from ipywidgets import HTML
from made import Folder, Saying, state_with
from matplotlib.figure import Figure
from payloads import CHINESE, FEW, FORTY, HARMLESS, ONE, acting, head, whole
from walk import drawn, everything, made_of, seen, texts, unlike, wrong, wrong_bundle

import rwkvlab as lab
from rwkvlab.states.card import StateCard
from rwkvlab.states.state import State
from rwkvlab.widgets.base.code import state_code
from rwkvlab.widgets.inspecting.head import Head
from rwkvlab.widgets.mixing import mixer as mixer_module

HERE = Path(lab.__file__).parent / "widgets"
SOON = 60
MET = set()  # the classes of widgets that were walked through, by name


def modules():
    """Return all modules of rwkvlab.widgets."""
    names = [found.name for found in pkgutil.walk_packages([str(HERE)], "rwkvlab.widgets.")]
    return [importlib.import_module(name) for name in names]


@lru_cache(1)
def classes():
    """Return the classes of widgets that rwkvlab.widgets defines, by name."""
    found = [one for module in modules() for one in vars(module).values() if inspect.isclass(one)]
    mine = [one for one in found if issubclass(one, ipywidgets.Widget) and one.__module__.startswith("rwkvlab.")]
    return {one.__name__: one for one in mine}


def states(model, text):
    """Return states for a model, named by a text everywhere."""
    wkv = model.zero().wkv + 1
    card = StateCard(name=text, arch=model.dims.arch, recipe=text, source=text, notes=(text,), parents=(text,))
    return {text: State(wkv, like=model, card=card), "b": State(2 * wkv, like=model).named("b")}


def save(widget, path):
    """Type a file name into every box for one, press Save, and wait for what is said."""
    parts = everything(widget)
    boxes = [one for one in parts if isinstance(one, ipywidgets.Text) and one.description in ("file", "save as")]
    buttons = [one for one in parts if isinstance(one, ipywidgets.Button) and one.description == "Save"]
    assert boxes and buttons
    for box, button in zip(boxes, buttons, strict=True):
        box.value = path
        button.click()
    for one in parts:
        assert getattr(one, "wait", lambda _: True)(SOON)
        assert getattr(getattr(one, "work", None), "wait", lambda _: True)(SOON)


def picker(model, text, folder):
    made = classes()["StatePicker"](states(model, text))
    made.filter = whole(text)[:20]
    yield made
    yield classes()["StatePicker"](folder.shelf())
    made.state = state_with(name="", recipe=text)
    yield made


def mixer(model, text, folder):
    made = classes()["StateMixer"](states(model, text), model, prompt=text, max_tokens=2)
    made.work.wait(SOON)
    yield made
    made.state = states(model, text)[text]
    yield made
    save(made, f"/no/{text}.pth")
    yield made


def inspector(model, text, folder):
    named = states(model, text)
    made = classes()["StateInspector"](text, "b", shelf=named, model=model)
    made.measure(whole(text) or "a")
    for work in (made._work, made._drawing, made._work, made._drawing):
        work.wait(SOON)
    yield made


def grid(model, text, folder):
    one, two = states(model, text).values()
    yield classes()["StateGrid"](one, two)


def playground(model, text, folder):
    made = classes()["Playground"](model, states(model, text), sampling={"max_tokens": 2, "temperature": 0})
    made.ask(text).wait(SOON)
    yield made
    made.chat = True
    made.ask(text).wait(SOON)
    made.new_chat()
    yield made


def tune_panel(model, text, folder):
    made = classes()["TunePanel"](model, [("a", whole(text) or "b")] * 2, teacher=whole(text) or "a")
    made.looking.wait(SOON)
    yield made
    made.source, made.path = "file", f"/no/{text}"
    made.start()
    made.wait(SOON)
    made.looking.wait(SOON)
    yield made
    made.source, made.text = "pasted", text
    made.looking.wait(SOON)
    made.state = states(model, text)[text]
    yield made


def tuned(model, text, folder):
    pair = (whole(text) or "a", whole(text) or "b")
    made = classes()["TunePanel"](model, [pair] * 2, steps=2, held_out=0.5)
    made.start()
    made.wait(SOON)
    made.looking.wait(SOON)
    yield made


def pieces(model, text, folder):
    said = classes()["Caption"](text)
    yield said
    said.say(ValueError(text), trouble=True)
    yield said
    picture = classes()["Picture"]()
    picture.show(Figure(), text)
    yield picture
    yield classes()["CodeButton"](code=state_code(state_with(), {text: 1}, text))
    work = classes()["Work"]()

    def job(report):
        report(1, 2, text)
        raise ValueError(text)

    work.start(job, text)
    work.wait(SOON)
    yield work


# how each widget is shown with a text; several states of it one after the other, and the texts it is shown with
WIDGETS = {
    "StatePicker": (picker, FORTY),
    "StateMixer": (mixer, FORTY),
    "StateInspector": (inspector, FORTY),
    "StateGrid": (grid, FORTY),
    "Playground": (playground, [text[:300] for text in FORTY]),  # it shows all that is written
    "TunePanel": (tune_panel, FORTY),
    "TunePanel, tuned": (tuned, FORTY),
    "the parts": (pieces, FEW),
}
PICTURES = ("Grid", "Inspector")  # what a saved notebook keeps of these is slow to draw


@pytest.fixture(scope="module")
def model(tiny_file):
    """A model that writes a text with every token: `model.tokenizer.say(text)` chooses which."""
    return lab.load_model(tiny_file, tokenizer=Saying())


@pytest.fixture(autouse=True)
def drawn_quickly(monkeypatch, tmp_path):
    monkeypatch.setattr(Figure, "savefig", drawn)
    monkeypatch.chdir(tmp_path)


def without_figures(patch):
    """Leave out the figures of two widgets, which are slow to draw; pages and captions are made as ever."""

    def blank(draw):
        sizes = []

        def instead(*given):
            sizes.extend([] if sizes else [draw(*given).get_size_inches()])
            return Figure(figsize=sizes[0])

        return instead

    patch.setattr(mixer_module, "mixture_figure", blank(mixer_module.mixture_figure))
    patch.setattr(Head, "figure", blank(Head.figure))


def shown(kind, model, text, root):
    """Yield the states of a widget that is shown with a text."""
    model.tokenizer.say(whole(text))
    made = None
    for made in WIDGETS[kind][0](model, text, Folder(text, root)):
        MET.update(type(one).__name__ for one in everything(made))
        yield made
    made.close()


@pytest.mark.parametrize("kind", WIDGETS)
def test_nothing_in_a_widget_comes_from_a_text_but_text(kind, model, root, monkeypatch):
    plain = [made_of(made) for made in shown(kind, model, HARMLESS, root)]
    found = {}
    for number, text in enumerate(WIDGETS[kind][1]):
        if number == 8:
            without_figures(monkeypatch)
        for at, made in enumerate(shown(kind, model, text, root)):
            trouble = wrong(made)
            trouble += wrong_bundle(made) if text in ONE[::4] or not kind.endswith(PICTURES) else []
            trouble += [] if seen(made, text) else ["it is not seen"]
            # blank texts and those that UTF-8 cannot hold are refused here and there, which is another view
            if head(text) and whole(text) == text:
                trouble += unlike(plain[at], made_of(made), text)
            if trouble:
                found[f"{text[:40]!r} {at}"] = trouble[:3]
    assert not found


@pytest.mark.parametrize("kind", WIDGETS)
def test_chinese_stays_readable_in_widgets(kind, model, root):
    for text in CHINESE[:2]:
        for made in shown(kind, model, text, root):
            assert any(text in said for one in everything(made) for _, said in texts(one))


def test_every_widget_that_is_exported_is_shown_with_hostile_texts():
    """Whoever exports a widget adds it to WIDGETS."""
    exported = {
        name for name, one in vars(lab.widgets).items() if inspect.isclass(one) and issubclass(one, ipywidgets.Widget)
    }
    assert "StatePicker" in exported and exported <= WIDGETS.keys(), exported - WIDGETS.keys()


def test_every_class_of_widget_was_met_with_a_hostile_text(model, root):
    for kind in WIDGETS:
        for _ in shown(kind, model, "<b>$x$", root):
            pass
    bases = {"Inputs"}  # of what is met
    assert not classes().keys() - MET - bases


def test_a_widget_that_does_not_escape_is_seen():
    for text in ("<img src=x onerror=alert(1)>", "$x$", "\x1b[31m"):
        assert wrong(ipywidgets.VBox([ipywidgets.HBox([ipywidgets.HTML(f"<b>{text}</b>")])])), text
        assert wrong(ipywidgets.Label(text)) or "<" in text
        assert wrong(ipywidgets.Text(description=text)) or "<" in text
        assert wrong(ipywidgets.Accordion([ipywidgets.VBox()], titles=[text])) or not acting(text)
    assert wrong(ipywidgets.HTMLMath("a"))
    for one, other in ((ipywidgets.VBox([]), ipywidgets.VBox([ipywidgets.Label()])), (HTML("<p>a"), HTML("<b>b"))):
        assert unlike(made_of(one), made_of(other), "b") and not unlike(made_of(one), made_of(one), "b")
