"""What a file says can neither act nor hide wherever it is shown: HTML, plain text, terminals, plots, widgets."""

import json
import os
import re
import tempfile
import unicodedata
import warnings
import xml.etree.ElementTree as ElementTree
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure

import rwkvlab as lab
from rwkvlab.cli import main
from rwkvlab.errors import RwkvLabError, show
from rwkvlab.measure.arms import name_arms
from rwkvlab.measure.comparing.comparison import Comparison
from rwkvlab.measure.comparing.page import STARTS
from rwkvlab.measure.comparing.tokens import TOKENS
from rwkvlab.measure.diff import diff
from rwkvlab.measure.influence_report import RANDOM, STATE, Influence
from rwkvlab.measure.verifying.report import Verification, describe_model, describe_state
from rwkvlab.plots import (
    plot_accuracy,
    plot_curve,
    plot_head,
    plot_heads,
    plot_layers,
    plot_outcomes,
    plot_strip,
    plot_surprise,
    plot_trajectory,
    plot_writes,
)
from rwkvlab.states.card import ModelCard, StateCard
from rwkvlab.states.layouts import OURS
from rwkvlab.states.render import NO_FORMULAS
from rwkvlab.states.state import State
from rwkvlab.tasks.templates import Template
from rwkvlab.tensorfile import write_pth, write_safetensors
from rwkvlab.widgets.picker import StatePicker

HARMLESS = "plain"
LONGEST = 60_000  # characters of a message; most are far below
HOSTILE = [
    # HTML, attributes, entities
    "<script>alert(1)</script>", "</td></tr></table><img src=x onerror=alert(1)>", '"><svg onload=alert(1)>',
    "' onmouseover='alert(1)", '" style="position:fixed" x="', "<!-- ", "--><b>", "<![CDATA[<b>]]>", "</title><script>",
    "</pre><b>", "<iframe src=javascript:alert(1)>", "&lt;b&gt;", "&#60;b&#62;", "&#x3c;script&#x3e;", "&nbsp;&copy",
    "<b", "<", "&", '"', "'", "<mark>", "{0} {name} %s", "\uff1cscript\uff1e", "<\x00script>", "<scr\nipt>",
    # Markdown, LaTeX, mathtext
    "[x](javascript:alert(1))", "**b** | a |\n|---|", "$x^2$", "$\\frac", "$$\\href{javascript:alert(1)}{b}$$",
    "\\(\\href{javascript:alert(1)}{x}\\)", "\\begin{equation}x\\end{equation}", "$\\unknown{", "$", "\\$x$", "\\",
    # terminals
    "\x1b[31mred", "\x1b]8;;http://a\x1b\\x\x1b]8;;\x1b\\", "\x1b]0;title\x07", "\x9b31m", "\x07", "a\b\b\bc", "a\rb",
    "\x1b[2J\x1b[H", "\x7f", "\x00", "a\tb", "a\nb", "rwkvlab: error: x\nrwkvlab: note: y",
    # Unicode
    "\u202egnp.exe", "\u2066a\u2069", "\u200bz\u200bw", "\ufeffbom", "a\u2028b", "\x85", "\ud800", "\udcff", "\ue000",
    "\U000e0041", "\U0001f469\u200d\U0001f4bb", "\u0301" * 40, "文言文", "\u061c",
    # long, odd
    "x" * 10_000, "<b>" * 4_000, "\x1b[1m" * 3_000, " " * 500, "..", "-rf",
]  # fmt: skip


def state_with(**fields):
    return State(torch.ones(1, 1, 4, 4), card=StateCard(**{"name": "a", "arch": "x070"} | fields))


def as_file_name(text):
    """Return what of a text can stand in a file name here."""
    return re.sub(r"[/\0\ud800-\udbff\udc00-\udc7f\udd00-\udfff]", "_", text)[:60].strip(".") or "_"


def as_toml(text):
    codes = (0x5F if 0xD800 <= ord(c) < 0xE000 else ord(c) for c in text)  # TOML has no lone surrogates
    return '"' + "".join(f"\\U{code:08x}" for code in codes) + '"'


def error_of(function, *args, **options):
    try:
        function(*args, **options)
    except RwkvLabError as error:
        return str(error)
    return ""


class Folder:
    """A new folder for files whose names, tensors, metadata or contents are a text."""

    def __init__(self, text, root):
        self.text, self.path = text, Path(tempfile.mkdtemp(dir=root))

    def state(self, file="a", **fields):
        """Save a state under a name and return its path."""
        path = self.path / f"{as_file_name(file)}.safetensors"
        lab.save_state(state_with(**fields), self.path / "saved.safetensors")
        return (self.path / "saved.safetensors").rename(path)

    def bad(self):
        path = self.path / f"{as_file_name(self.text)}.pth"
        path.write_bytes(b"no state at all")
        return path

    def tensors(self, key, **metadata):
        """Write a file with a tensor of this name; "" where it cannot have one."""
        path = self.path / "a.safetensors"
        shape = torch.ones(1, 4, 4) if key.endswith("time_state") else torch.ones(3)
        raw = shape.numpy().tobytes()
        header = {key: {"dtype": "F32", "shape": list(shape.shape), "data_offsets": [0, len(raw)]}}
        text = json.dumps(header | ({"__metadata__": metadata} if metadata else {})).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + raw)
        return path

    def config(self, **fields):
        (self.path / "models").mkdir()
        path, entry = self.path / "Config.toml", {"path": "a.state", "name": "a"} | fields
        lines = "\n".join(f"{key} = {as_toml(value)}" for key, value in entry.items())
        path.write_text(f'[model]\npath = "models"\n[[state]]\n{lines}\n', encoding="utf-8")
        return path

    def shelf(self):
        """Return a shelf of one state and one unreadable file, both named by the text."""
        self.state(self.text)
        self.bad()
        return lab.Shelf(self.path)


def reasons(shelf):
    return " ".join(shelf.unreadable.values())


def comparison(prompt="p", arm="a", answer="b", template="world", setting="c", card="d", about="e", first="zero"):
    """Return a comparison as `compare` makes it, of two tokens an answer, without the counting."""
    arms = (first, arm)
    rows = [(prompt, name, 0, answer, 2, 0.0, "end") for name in arms]
    table = pd.DataFrame(rows, columns=["prompt", "state", "sample", "text", "tokens", "logprob", "finish"])
    same = dict(zip(arms, (True, False), strict=True))
    tokens = pd.DataFrame(
        [
            (prompt, name, 0, along, at, id_, answer, 2.0, 0.1, 0.2, same[name])
            for name in arms
            for along, ids in (("own", (5, 6 + same[name])), ("baseline", (5, 7)))
            for at, id_ in enumerate(ids)
        ],
        columns=list(TOKENS),
    )
    written = tokens[tokens["along"] == "own"].drop(columns=["along", "kl", "surprise", "surprise_baseline"])
    cards = [(name, *[card] * 6, 1.0, card) for name in arms]
    starts = pd.DataFrame(cards, columns=list(STARTS))
    return Comparison(table, template, {"stop": setting}, written, {"model": about}, starts, lambda: tokens)


def read(compared):
    """Return the same with its strips."""
    assert len(compared.tokens)
    return compared


def paged(compared):
    """Return an object that is shown as the page of a comparison."""

    class Page:
        __repr__ = compared.__repr__
        _repr_html_ = compared._page

    return Page()


def verified(text):
    """Return a report as `verify` makes it, without the counting."""
    model = SimpleNamespace(**vars(model_like()), dtype="fp32", device=torch.device("cpu"))
    model.card = ModelCard(text, "x070", "0" * 64)
    model.dims.vocab = 9
    state = describe_state(state_with(name=text, source=text, recipe=text, notes=(text,)))
    about = {"model": describe_model(model, None), **state, "texts": f"template {show(text)}"}
    return Verification(pd.DataFrame(), pd.DataFrame(), (), (), "undecided", about)


def influence_of(name):
    """Return a report as `influence` makes it, without the running."""
    rows = [{"token": at, "start": start, "kl": 1.0} for start in (STATE, RANDOM) for at in range(1, 40)]
    half = pd.DataFrame({"layer": [0], "head": [0], "half_life": [8.0]})
    return Influence(pd.DataFrame(), half, pd.DataFrame(rows), name, tokens=40, every=1)


def model_like():
    dims = SimpleNamespace(arch="x070", L=1, H=1, V=4, K=4, C=4)
    return SimpleNamespace(dims=dims, card=ModelCard("m", "x070", "0" * 64))


# what shows a text: each takes the text and a Folder and returns an object, shown below as HTML and as plain text
OBJECTS = {
    **{
        f"state's {field}": lambda text, _, field=field: state_with(**{field: text})
        for field in ("name", "arch", "base", "template", "recipe", "source")
    },
    "state's notes": lambda text, _: state_with(notes=(text,) * 12),
    "state's parents": lambda text, _: state_with(name="", recipe=f"0.5 * {text}", parents=(text,)) * 2,
    "shelf's files": lambda _, folder: folder.shelf(),
    "shelf's folder": lambda text, folder: lab.Shelf(folder.state(text).parent),
    "shelf's cards": lambda text, folder: lab.Shelf(folder.state(arch=text, name=text).parent, model_like()),
    "shelf's bases": lambda text, folder: lab.Shelf(folder.state(base=text, name=text).parent, model_like()),
    "shelf of a config": lambda text, folder: lab.read_ai00(folder.config(name=text)),
    "shelf of a config's paths": lambda text, folder: lab.read_ai00(folder.config(path=as_file_name(text))),
    "compared prompt": lambda text, _: comparison(prompt=text),
    "compared state": lambda text, _: comparison(arm=text),
    "compared answer": lambda text, _: comparison(answer=text),
    "compared template": lambda text, _: comparison(template=text),
    "compared setting": lambda text, _: comparison(setting=text),
    "compared answer with strips": lambda text, _: read(comparison(answer=text)),
    "compared state with strips": lambda text, _: read(comparison(arm=text)),
    **{
        f"page's {field}": lambda text, _, field=field: paged(comparison(**{field: text}))
        for field in ("prompt", "arm", "answer", "template", "setting", "card", "about", "first")
    },
    "inspected file": lambda _, folder: lab.inspect_file(folder.bad()),
    "inspected tensor": lambda text, folder: lab.inspect_file(folder.tensors(text)),
    "inspected card": lambda text, folder: lab.inspect_file(
        folder.state(text, name=text, arch=text, template=text, recipe=text, base=text, notes=(text,))
    ),
    "states that differ": lambda text, _: diff(
        state_with(name="", source=text),
        state_with(name=text, base=text, arch="x060", template=text, recipe=text, parents=(text,), notes=(text,) * 3),
    ),
    "state files that differ": lambda text, folder: diff(folder.state(text, name=text), state_with(name=text)),
    "verified model and state": lambda text, _: verified(text),
    "influence's state": lambda text, _: influence_of(text),
}
# messages, and other texts of one line
MESSAGES = {
    "a missing state": lambda text, _: error_of(lab.load_state, f"/no/{text}.pth"),
    "a missing model": lambda text, _: error_of(lab.load_model, f"/no/{text}.pth"),
    "a missing folder": lambda text, _: error_of(lab.Shelf, f"/no/{text}"),
    "a file that is none": lambda _, folder: error_of(lab.load_state, folder.bad()),
    "a model that is none": lambda _, folder: error_of(lab.load_model, folder.bad()),
    "a tensor's name": lambda text, folder: error_of(lab.load_state, folder.tensors(text)),
    "a weight's name": lambda text, folder: error_of(lab.load_model, folder.tensors(text)),
    "a tensor's odd name": lambda text, folder: error_of(lab.load_state, folder.tensors(f"{text}.time_state")),
    "metadata": lambda text, folder: error_of(lab.load_state, folder.tensors("w", format=text, version=text)),
    "a version": lambda text, folder: error_of(
        lab.load_state, folder.tensors("wkv", format=OURS, version=text, sha256=text, order=text, card=text)
    ),
    "a card that is none": lambda text, _: error_of(StateCard.from_dict, {"name": [text]}),
    "a card's list": lambda text, _: error_of(StateCard.from_dict, {"notes": {text: 1}}),
    "another architecture": lambda text, folder: error_of(
        lab.load_state, folder.state(text, arch=text, name=text), model_like()
    ),
    "another base": lambda text, folder: error_of(
        lab.load_state, folder.state(text, base=text, name=text), model_like()
    ),
    "a sum of two bases": lambda text, _: error_of(lambda: state_with(base=text) + state_with(base="0" * 64)),
    "a sum of two kinds": lambda text, _: error_of(lambda: state_with(arch=text) + state_with(arch="x060")),
    "a name of a shelf": lambda text, folder: error_of(lambda: lab.Shelf(folder.state().parent)[text]),
    "an unreadable one": lambda text, folder: reasons(folder.shelf()),
    "a template's name": lambda text, _: error_of(lab.compare, model_like(), "a", [], template=text),
    "a template's text": lambda text, _: error_of(Template, text, text, ()),
    "a bundled name": lambda text, _: error_of(lab.bundled, text),
    "arms": lambda text, _: error_of(name_arms, {text: 3}, zero_first=True),
    "an id of a config": lambda text, folder: reasons(lab.read_ai00(folder.config(id=text))),
    "a path of a config": lambda text, folder: reasons(lab.read_ai00(folder.config(path=f"../{text}"))),
    "a name to save": lambda text, folder: error_of(lab.save_state, state_with(), f"{folder.path}/{text}:.pth"),
    "a folder to save to": lambda text, folder: error_of(lab.save_state, state_with(), f"{folder.path}/{text}/a.pth"),
    "a suffix to save": lambda text, folder: error_of(lab.save_state, state_with(), f"{folder.path}/a.{text}"),
    "a key to save": lambda text, folder: error_of(write_pth, folder.path / "a", {text: 1}),
    "another key to save": lambda text, folder: error_of(write_safetensors, folder.path / "a", {text: 1}),
    "a name read": lambda text, _: repr(lab.parse_name(text)),
    "a card": lambda text, _: repr(StateCard(name=text, notes=(text,))),
    "a plot's column": lambda text, _: error_of(plot_curve, pd.DataFrame(), text),
    "the command ask": lambda text, folder: command("ask", "-m", f"/no/{text}", "--", text),
    "the command inspect --json": lambda text, folder: command(
        "inspect", "--json", folder.bad(), folder.state(text, template=text, recipe=text)
    ),
    "the command diff": lambda text, folder: command("diff", folder.state(text, name=text, recipe=text), folder.bad()),
    "the command inspect": lambda text, folder: command("inspect", folder.bad(), folder.state(text, name=text)),
}


def command(*args):
    """Return what a command prints, both streams."""
    import contextlib
    import io

    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text), contextlib.suppress(SystemExit):
        main([str(arg) for arg in args])
    return text.getvalue()


class Outline(HTMLParser):
    """The elements of a page with their attributes, its text, and the text that a typesetter of formulas would see."""

    def __init__(self, page):
        super().__init__()
        self.ends = 0
        self.parts, self.words, self.typeset, self.open = [], [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        if tag == "mark":  # stands where answers differ
            self.ends += 1
        else:
            self.parts.append((tag, tuple(attrs)))
        self.open.append((tag, dict(attrs).get("class", "")))

    def handle_endtag(self, tag):
        self.ends += 1
        while self.open and self.open.pop()[0] != tag:
            pass

    def handle_data(self, data):
        self.words.append(data)
        kept = any(name.endswith("tex2jax_ignore mathjax_ignore") or tag == "pre" for tag, name in self.open)
        if not kept and not any(tag == "style" for tag, _ in self.open):
            self.typeset.append(data)

    def handle_comment(self, data):
        self.parts.append(("comment", data))

    handle_decl = handle_pi = unknown_decl = handle_comment


def acting(text, kept="\n"):
    """Return the characters that could act on a terminal, or hide."""
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in kept}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return tmp_path_factory.mktemp("escapes")


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda handle: None)  # these files need not last
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        yield


def test_there_are_many_hostile_texts():
    assert len(set(HOSTILE)) == len(HOSTILE) >= 60


def wrong(sinks, sink, root, check):
    """Return the hostile texts, cut, that a sink shows wrongly, and how."""
    found = []
    for text in HOSTILE:
        trouble = check(sinks[sink](text, Folder(text, root)))
        if trouble:
            found.append((text[:40], str(trouble)[:200]))
    return found[:5]


@pytest.mark.parametrize("sink", OBJECTS)
def test_no_element_no_formula_and_no_control_character_comes_from_a_text(sink, root):
    harmless = OBJECTS[sink](HARMLESS, Folder(HARMLESS, root))
    plain, page = repr(harmless), harmless._repr_html_()
    want = Outline(page).parts
    assert HARMLESS in page or sink == "shelf's bases"  # it is shown at all
    # rows and columns of these come and go with what the text means as a name
    loose = {*want, *TABLE} if "inspected" in sink or "shelf" in sink else None

    def check(shown):
        text, page = repr(shown), shown._repr_html_()
        got = Outline(page)
        same = set(got.parts) <= loose if loose else got.parts == want and text.count("\n") == plain.count("\n")
        tags = len(got.parts) + got.ends == page.count("<")
        short = len(text) < len(plain) + 8_000
        typeset = re.findall(r".*[$\\].*", "".join(got.typeset))
        return acting(text) or acting(page) or typeset or "" if same and tags and short else (text, page)

    assert not wrong(OBJECTS, sink, root, check)


TABLE = {(tag, ()) for tag in ("table", "thead", "tbody", "tr", "th", "td", "div", "b")} | {
    ("td", (("style", "text-align:left"),)),
    ("td", (("style", "text-align:left;opacity:.7"),)),
    ("tr", (("style", "opacity:.6"),)),
}


@pytest.mark.parametrize("sink", MESSAGES)
def test_nothing_in_a_message_acts_on_a_terminal(sink, root):
    plain = MESSAGES[sink](HARMLESS, Folder(HARMLESS, root))
    assert plain
    lines = plain.count("\n")
    assert not wrong(
        MESSAGES,
        sink,
        root,
        lambda text: acting(text) or (text if text.count("\n") > lines or len(text) > LONGEST else ""),
    )


def test_a_text_is_shown_as_it_is_and_not_as_what_it_encodes(root):
    for text in ("&lt;b&gt;", "&#60;b&#62;", "<b>x</b>", "a & b", "'\"`", "文言文"):
        for sink in ("state's name", "compared prompt", "compared answer", "state's recipe"):
            page = OBJECTS[sink](text, Folder(text, root))._repr_html_()
            assert text in "".join(Outline(page).words), (sink, text)


def draw_titles(texts, figure):
    """Draw two panels a text: its name as a title, and as the word beside the colours."""
    panels = figure.subplots(2, len(texts), squeeze=False)
    for text, above, below in zip(texts, *panels, strict=True):
        plot_head(state_with(name=text), 0, 0, ax=above)
        plot_heads(pd.DataFrame({"layer": [0], "head": [0], text: [1.0]}), ax=below)


def draw_lines(texts, figure):
    """Draw two panels a text: a state without a name by its recipe, and a column of its own."""
    panels = figure.subplots(2, len(texts), squeeze=False)
    for text, above, below in zip(texts, *panels, strict=True):
        plot_heads(state_with(name="", recipe=text), ax=above)
        plot_curve(pd.DataFrame({"t": [0.0], "task": ["a"], text: [1.0]}), text, ax=below)


def draw_ticks(texts, figure):
    rows = [{"state": text, "task": text, "right": True} for text in texts]
    plot_accuracy(pd.DataFrame(rows), ax=figure.add_subplot())


def draw_legend(texts, figure):
    rows = [{"t": t, "task": text, "accuracy": t} for text in texts for t in (0.0, 1.0)]
    plot_curve(pd.DataFrame(rows), ax=figure.add_subplot())


def draw_pieces(texts, figure):
    """Draw two panels: the texts as tokens in reading order, and as bars; and as the name of what was read."""
    above, below = figure.subplots(2, 1)
    table = pd.DataFrame({"piece": texts, "kl": 1.0, "token": range(len(texts)), "share": 0.1})
    plot_strip(table, ax=above, width=1000)
    plot_writes(table, ax=below, top=100)


def draw_series(texts, figure):
    """Draw a panel each in which the texts are starts, ways, states, and states beside one another."""
    table = pd.DataFrame([{"start": text, "token": at, "kl": 1.0} for text in texts for at in (0, 1)])
    one, two, three = figure.subplots(3, 1)
    plot_surprise(table, "kl", ax=one)
    plot_trajectory(table.assign(text=table["start"], pc1=1.0, pc2=table["token"]), ax=two)
    plot_layers(table.assign(part=table["start"], layer=table["token"]), "kl", ax=three)


FORMULAS = ["$\\frac", "\\$x$", "$$\\href{javascript:alert(1)}{b}$$", "<script>alert(1)</script>"]
DRAWN = [(draw_titles, FORMULAS), (draw_lines, FORMULAS), (draw_ticks, HOSTILE), (draw_legend, HOSTILE)]
DRAWN += [(draw_pieces, HOSTILE), (draw_series, HOSTILE)]


@pytest.mark.parametrize(("draw", "texts"), DRAWN)
def test_no_plot_fails_and_no_element_of_an_svg_comes_from_a_text(draw, texts, tmp_path):
    found = []
    for some in (texts, [f"{HARMLESS}{at}" for at in range(len(texts))]):
        figure = Figure(figsize=(12, 12), dpi=30)
        draw(some, figure)
        with matplotlib.rc_context({"svg.fonttype": "none"}):  # texts as texts, not as outlines
            figure.savefig(tmp_path / "a.svg")
        page = (tmp_path / "a.svg").read_text(encoding="utf-8")
        elements = list(ElementTree.fromstring(page).iter())
        found.append(Counter((element.tag, *sorted(set(element.attrib) - {"style"})) for element in elements))
        shown = "".join(element.text or "" for element in elements if element.tag.endswith("}text"))
        assert not acting(shown)
        if some is texts:
            assert "$\\frac" in shown and "<script>" in shown  # as they are, and not as formulas
    # blank texts have no element at all
    more = found[0] - found[1]
    assert not more, more


def test_a_figure_of_a_state_and_its_answers_takes_any_name(tmp_path):
    text = "$\\frac</svg><script>\x1b[31m"
    rows = pd.DataFrame([{"state": text, "task": text, "right": True}])
    plot_outcomes(state_with(name=text), rows).savefig(tmp_path / "a.png", dpi=20)


def test_nothing_in_a_picker_acts_or_is_typeset(root):
    for text in HOSTILE:
        folder = Folder(text, root)
        for picker in (StatePicker({text or "a": state_with()}), StatePicker(folder.shelf())):
            assert len(picker.table.rows) == 2 + len(picker.unusable)
            # a row is set as text and nothing is typeset in it; a caption is HTML in which nothing is
            shown = "".join(cell for row in picker.table.rows for cell in (*row["cells"], row["off"]))
            assert not acting(shown), text
            for page in (picker.caption.value, picker._repr_mimebundle_()["text/html"]):
                assert not acting(page, "\n") and NO_FORMULAS in page, text
                assert len(text) < 4 or "<" not in text or text not in page, text
        picker.state = state_with(name="", recipe=text)
        assert not acting(picker.caption.value, "\n") and NO_FORMULAS in picker.caption.value


def test_nothing_that_a_model_or_a_state_says_acts_on_the_terminal_of_ask(root, monkeypatch):
    class Model(SimpleNamespace):
        def chat(self, question, state, *, template, on_text, **_):
            on_text(self.text)
            return SimpleNamespace(finish="end")

    for text in HOSTILE:
        model = Model(**vars(model_like()), text=text)
        monkeypatch.setattr(lab, "load_model", lambda *_, model=model, **__: model)
        file = Folder(text, root).state(text, name=text, template=text, notes=(text, text))
        shown = command("ask", "question", "-m", "model", "-s", file, "--zero", "--template", "world")
        assert "--- zero" in shown and "template world" in shown, (text, shown)
        assert not acting(shown, "\n\t\u200c\u200d"), (text, shown)


def test_an_error_that_is_not_ours_is_one_line_that_does_not_act(monkeypatch):
    for text in HOSTILE:

        def fail(*_, text=text, **__):
            raise ValueError(text)

        monkeypatch.setattr(lab, "load_model", fail)
        shown = command("ask", "question", "-m", "model")
        assert "not foreseen" in shown and shown.count("\n") == 1 and not acting(shown), text


def test_nothing_in_the_table_of_a_shelf_acts_and_pandas_escapes_it(root):
    for text in HOSTILE:
        table = Folder(text, root).shelf().table()
        assert not acting("".join(map(str, table.drop(columns=["MiB"]).to_numpy().flat))), text
        assert {tag for tag, _ in Outline(table.to_html()).parts} <= {"table", "thead", "tbody", "tr", "th", "td"}, text


MAKERS = {
    "states/state.py",
    "states/shelf.py",
    "measure/comparing/comparison.py",
    "measure/influence_report.py",
    "measure/diff_report.py",
    "measure/verifying/report.py",
    "model/file_report.py",
}


def test_no_html_is_made_but_by_what_is_tested_here():
    """Whoever adds a `_repr_html_` adds it to OBJECTS."""
    html, root = r"_repr_html_|_repr_markdown_|_repr_svg_|\bHTML\(|Markdown\(|escape=False", Path(lab.__file__).parent
    found = {str(path.relative_to(root)) for path in root.rglob("*.py") if re.search(html, path.read_text("utf-8"))}
    assert found == MAKERS
