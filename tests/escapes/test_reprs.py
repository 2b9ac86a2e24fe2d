"""Everything that shows itself in a notebook: its tree is that of a harmless text, and the text is seen in it."""

import re
from pathlib import Path

import pytest
from made import Folder, as_file_name, comparison, everywhere, influence_of, model_like, paged, state_with, verified
from payloads import CHINESE, FEW, FORTY, HARMLESS, KINDS, PAYLOADS, acting, head, whole
from trees import Tree, differences

import rwkvlab as lab
from rwkvlab.measure.diff import diff

LONGER = 8_000  # characters that a hostile text may add to a plain repr
CARD = ("name", "base", "template", "recipe", "source")


def carded(text):
    return state_with(**dict.fromkeys(CARD, text), notes=(text,) * 12)


# what shows a text: each takes the text and a Folder, and returns an object, shown below as HTML and as plain text
OBJECTS = {
    "state's card": lambda text, _: carded(text),
    "state's arch": lambda text, _: state_with(arch=text),
    "state's parents": lambda text, _: state_with(name="", recipe=f"0.5 * {text}", parents=(text,)) * 2,
    "shelf's files": lambda _, folder: folder.shelf(),
    "shelf's folder": lambda text, folder: lab.Shelf(folder.state(text).parent),
    "shelf's cards": lambda text, folder: lab.Shelf(folder.state(arch=text, name=text).parent, model_like()),
    "shelf's bases": lambda text, folder: lab.Shelf(folder.state(base=text, name=text).parent, model_like()),
    "shelf of a config": lambda text, folder: lab.read_ai00(folder.config(name=text)),
    "shelf of a config's paths": lambda text, folder: lab.read_ai00(folder.config(path=as_file_name(text))),
    "comparison": lambda text, _: everywhere(text),
    "comparison with strips": lambda text, _: read(everywhere(text)),
    "comparison's page": lambda text, _: paged(everywhere(text)),
    "comparison's baseline": lambda text, _: paged(comparison(first=text)),
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
MAKERS = {
    "states/state.py",
    "states/shelf.py",
    "measure/comparing/comparison.py",
    "measure/influence_report.py",
    "measure/diff_report.py",
    "measure/verifying/report.py",
    "model/file_report.py",
}
# what is slow to make gets a part of the texts
SOME = {"comparison's page": FEW, "state files that differ": FEW, "influence's state": FEW, "inspected card": FEW}
SOME |= dict.fromkeys(("comparison", "comparison with strips", "comparison's baseline", "states that differ"), FORTY)
WRAPPED = ("states that differ", "state files that differ", "verified model and state")
# rows and columns of these come and go with what the text means as a name: only what they are made of is compared
LOOSE = ("inspected", "shelf")
ROWS = {
    *("table", "thead", "tbody", "tr", "th", "td", "div", "b"),
    *("td style=text-align:left", "td style=text-align:left;opacity:.7", "tr style=opacity:.6", "table style=border:0"),
}


def read(compared):
    """Return the same with its strips."""
    assert len(compared.tokens)
    return compared


def parts(tree):
    """Return the elements of a tree, and each of their attributes, as "tag name=value"."""
    nodes = [(path.rsplit("/", 1)[-1], attributes) for path, attributes, *_ in tree.nodes]
    return {tag for tag, _ in nodes} | {f"{tag} {name}={value}" for tag, has in nodes for name, value in has.items()}


def wrong(sink, text, folder, harmless):
    """Return what is wrong with how a sink shows a text."""
    shown, (plain, page) = OBJECTS[sink](text, folder), harmless
    said, tree = repr(shown), Tree(shown._repr_html_())
    found = tree.wrong() + [f"{char!r} in the repr" for char in acting(said)]
    if sink.startswith(LOOSE):
        found += sorted(parts(tree) - parts(page) - ROWS)
        # the beginning of the text, or of what could be a file's name of it; bases are compared only
        seen = any(head(name)[:3] in tree.text for name in (text, as_file_name(text)))
        found += [] if seen or text != whole(text) or sink == "shelf's bases" else ["it is not shown"]
    else:
        found += differences(page, tree, text, wrapped=sink in WRAPPED)
        found += ["another number of lines"] if said.count("\n") != plain.count("\n") else []
    return found + (["too long"] if len(said) > len(plain) + LONGER else [])


@pytest.mark.parametrize("sink", OBJECTS)
def test_no_element_no_formula_and_no_control_character_comes_from_a_text(sink, root):
    harmless = OBJECTS[sink](HARMLESS, Folder(HARMLESS, root))
    page = Tree(harmless._repr_html_())
    assert not page.wrong()
    assert HARMLESS in page.page or sink == "shelf's bases"  # it is shown at all
    texts = SOME.get(sink, PAYLOADS)
    found = {text[:40]: wrong(sink, text, Folder(text, root), (repr(harmless), page)) for text in texts}
    assert not {text: trouble[:3] for text, trouble in found.items() if trouble}


@pytest.mark.parametrize("sink", ["state's card", "comparison", "comparison with strips", "comparison's page"])
def test_a_text_is_shown_as_it_is_and_not_as_what_it_encodes(sink, root):
    for text in (*CHINESE, *KINDS["entities"], *KINDS["attributes"], "<b>x</b>", "a & b", "'\"`"):
        if not acting(text):
            shown = OBJECTS[sink](text, Folder(text, root))
            assert text in Tree(shown._repr_html_()).text, text
            assert text in repr(shown) or (sink == "state's card" and text not in CHINESE), text


@pytest.mark.parametrize("sink", OBJECTS)
def test_chinese_stays_readable(sink, root):
    for text in CHINESE:
        shown = OBJECTS[sink](text, Folder(text, root))
        assert text in Tree(shown._repr_html_()).text or sink == "shelf's bases", text
        assert text in repr(shown) or sink in ("shelf's bases", "state's parents"), text


def test_nothing_in_the_table_of_a_shelf_acts_and_pandas_escapes_it(root):
    for text in FEW:
        table = Folder(text, root).shelf().table()
        assert not acting("".join(map(str, table.drop(columns=["MiB"]).to_numpy().flat))), text
        tree = Tree(table.to_html(notebook=True).split("</style>")[-1].rsplit("</div>", 1)[0])
        assert {path.rsplit("/", 1)[-1] for path, *_ in tree.nodes} <= {"table", "thead", "tbody", "tr", "th", "td"}


def test_no_html_is_made_but_by_what_is_tested_here():
    """Whoever adds a `_repr_html_` adds it to OBJECTS."""
    root, html = Path(lab.__file__).parent, r"_repr_html_|_repr_markdown_|_repr_svg_|\bHTML\(|Markdown\(|escape=False"
    files = {str(path.relative_to(root)): path.read_text("utf-8") for path in root.rglob("*.py")}
    # the HTML of widgets is looked at in test_widgets.py
    found = {name for name, text in files.items() if re.search(html, text.replace("ipywidgets.HTML", ""))}
    assert found == MAKERS
