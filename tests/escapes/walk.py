"""A widget as a page shows it: all that is in it, every text that goes to the browser, and what is wrong with them."""

import re
from base64 import b64decode
from functools import lru_cache

import ipywidgets
from made import as_file_name
from payloads import acting, head, whole
from trees import Tree, differences

PNG = b64decode("iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==")
# what a person types stands as it is in a box, which shows it as text
TYPED = (ipywidgets.Text, ipywidgets.Textarea)
MIMES = {"text/plain", "text/html", "image/png", "application/vnd.jupyter.widget-view+json"}
tree_of = lru_cache(100)(Tree)  # each page is looked at several times


def everything(widget):
    """Return a widget and all widgets in it, in order, each once: its children, and whatever else it sends."""
    found = {}

    def look(value):
        if isinstance(value, ipywidgets.Widget):
            if id(value) not in found:
                found[id(value)] = value
                for name in value.keys:
                    look(getattr(value, name))
        elif isinstance(value, (list, tuple)):
            for item in value:
                look(item)
        elif isinstance(value, dict):
            look(list(value.values()))

    look(widget)
    return list(found.values())


def texts(widget):
    """Return [(name of the trait, a text that it sends)], those in lists and dicts too; not code and style of ours."""

    def inside(value):
        if isinstance(value, str):
            return [value]
        if isinstance(value, dict):
            return [text for pair in value.items() for item in pair for text in inside(item)]
        return [text for item in value for text in inside(item)] if isinstance(value, (list, tuple)) else []

    kept = [name for name in widget.keys if not name.startswith(("_esm", "_css", "_model", "_view", "_anywidget"))]
    found = [(name, text) for name in kept for text in inside(getattr(widget, name))]
    return [pair for pair in found if pair != ("placeholder", "\u200b")]  # what ipywidgets puts there


def typed(widget, name):
    """Whether a trait holds what a person types."""
    box = isinstance(widget, TYPED) and not widget.disabled
    return name == "value" and (box or type(widget).__name__ == "QuestionBox")


def wrong(widget):
    """Return what no widget of ours may hold, whatever is shown in it."""
    found = []
    for one in everything(widget):
        kind = type(one).__name__
        for name, text in texts(one):
            kept = "\n\t" if name in ("code", "value") else "\n"
            found += [f"{kind}.{name}: {char!r}" for char in acting(text, kept) if not typed(one, name)]
        found += [f"{kind} typesets"] if isinstance(one, ipywidgets.HTMLMath) else []
        found += (
            [f"{kind}: {trouble}" for trouble in tree_of(one.value).wrong()] if isinstance(one, ipywidgets.HTML) else []
        )
        # labels and descriptions are typeset, but for those of buttons
        shown = [one.value] if isinstance(one, ipywidgets.Label) else []
        if not isinstance(one, (ipywidgets.Button, ipywidgets.ToggleButton)):
            shown += [getattr(one, "description", "")]
        found += [f"{kind}: a formula {text[:40]!r}" for text in shown if "$" in text or "\\" in text]
        found += [f"{kind}: HTML in a description"] if getattr(one, "description_allow_html", False) else []
    return found


def made_of(widget):
    """Return what a widget is made of: of each widget in it the class, its CSS classes, its style, and its HTML."""
    found = []
    for one in everything(widget):
        kind = type(one)
        style = texts(one) if isinstance(one, (ipywidgets.Layout, ipywidgets.Style)) else []
        tree = tree_of(one.value) if isinstance(one, ipywidgets.HTML) else None
        # anywidget makes a class of its own for every widget
        found.append((f"{kind.__module__}.{kind.__qualname__}", getattr(one, "_dom_classes", ()), style, tree))
    return found


def unlike(plain, hostile, text):
    """Return how what a widget is made of differs from that of one with a harmless text in its place: not at all."""
    if [kind for kind, *_ in plain] != [kind for kind, *_ in hostile]:
        return [f"other parts: {sorted({kind for kind, *_ in plain} ^ {kind for kind, *_ in hostile})}"]
    found = []
    for (kind, classes, style, tree), (_, others, other_style, other) in zip(plain, hostile, strict=True):
        found += [f"{kind}: other classes"] if classes != others else []
        found += [f"{kind}: another style"] if style != other_style else []
        found += [f"{kind}: {trouble}" for trouble in differences(tree, other, text, said=False)] if tree else []
    return found


def seen(widget, text):
    """Whether the text, or what could be a file's name of it, is anywhere in the widget."""
    pages = [tree_of(one.value) for one in everything(widget) if isinstance(one, ipywidgets.HTML)]
    said = "".join(page.text + "".join(node[1].get("alt", "") for node in page.nodes) for page in pages)
    said += "".join(text for one in everything(widget) for _, text in texts(one))
    return any(head(name)[:3] in said for name in (text, whole(text), as_file_name(text), repr(text)[1:-1]))


def wrong_bundle(widget):
    """Return what is wrong with what a saved notebook keeps of a widget."""
    found = widget._repr_mimebundle_()
    data = found[0] if isinstance(found, tuple) else found
    trouble = [f"{mime} in it" for mime in data.keys() - MIMES]
    trouble += [f"text/plain: {char!r}" for char in acting(data["text/plain"])]
    trouble += Tree(data["text/html"]).wrong() if "text/html" in data else []
    picture = b64decode(data.get("image/png", ""), validate=True)
    return trouble + ([] if picture[:8] in (b"", PNG[:8]) else ["image/png is no PNG"])


def drawn(figure, file, **_):
    """Stand in for `Figure.savefig`: quick, and nothing in the texts of the figure acts or is taken for a formula."""
    some = [*figure.texts, figure._suptitle] if getattr(figure, "_suptitle", None) else [*figure.texts]
    for ax in figure.axes:  # ticks, which are slow to ask for, are looked at in test_plots.py
        some += [ax.title, ax.xaxis.label, ax.yaxis.label, *ax.texts]
        some += ax.get_legend().get_texts() if ax.get_legend() else []
    for text in some:
        said = text.get_text()
        assert not acting(said) and not text.get_usetex(), said
        assert not re.search(r"(?<!\\)\$", said), f"a formula: {said}"
    file.write(PNG)
