"""A state shows itself in a line and in a block of HTML, and no text from outside acts there."""

import html.parser
import time

import pytest
import torch

from rwkvlab.states.card import StateCard
from rwkvlab.states.render import escape
from rwkvlab.states.shelf import Shelf
from rwkvlab.states.state import State

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'; DROP",
    "</td></table><iframe>",
    "\x1b[2J\x1b]8;;http://x\x07",
    "\u202egnp.exe",
    "a\nb\rc\0d",
    "\ud800",
    "x" * 10_000,
]


class Tags(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.seen = set()

    def handle_starttag(self, tag, attrs):
        self.seen |= {tag, *(name for name, _ in attrs if name.startswith("on"))}


def tags(text):
    parser = Tags()
    parser.feed(text)
    return parser.seen


def state(name="文言文"):
    card = StateCard(name, "x070", "ab" * 32, name, name, (name,), name, (name,) * 50)
    return State(torch.arange(24.0).view(3, 1, 2, 4), card=card)


def test_the_line_holds_name_geometry_and_a_bar_for_each_layer():
    text = repr(state())
    assert text.startswith("<State '文言文' RWKV-7 L3 H1 V2 K4, 0.0 MiB, norm 65.8 ")
    assert text.endswith("▂▅█>")
    assert repr(State(torch.zeros(2, 1, 2, 2))).endswith("norm 0 ▁▁>")
    assert "nan" in repr(State(torch.full((2, 1, 2, 2), float("nan"))))


def test_the_block_holds_the_card_and_a_bar_for_each_layer():
    text = state()._repr_html_()
    assert text.count("<rect") == 3
    for word in ("文言文", "RWKV-7", "L3 H1 V2 K4", "abababab", "layer 2: norm", "more notes"):
        assert word in text
    assert "<rect" not in State(torch.zeros(2, 1, 2, 2))._repr_html_()


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_text_from_outside_cannot_act(text):
    shown, line = state(text)._repr_html_(), repr(state(text))
    assert tags(shown) == tags(state()._repr_html_())
    assert shown.isprintable()
    assert line.isprintable()
    assert len(shown) < 12_000
    assert len(line) < 300
    assert not tags(escape(text))


def test_file_names_on_a_shelf_cannot_act(tmp_path):
    for name in ("<b>x.pth", '"onload=1 <svg>.state', "\x1b[2J.st"):
        (tmp_path / name).write_bytes(b"<html>")
    shelf = Shelf(tmp_path)
    assert tags(shelf._repr_html_()) <= {"div", "b", "table", "thead", "tbody", "tr", "th", "td", "ul", "li"}
    assert shelf._repr_html_().isprintable()
    assert "&lt;b&gt;x" in shelf._repr_html_()
    assert all(line.isprintable() for line in repr(shelf).split("\n"))


def test_a_large_state_is_shown_at_once():
    large = State(torch.randn(32, 64, 64, 64))
    times = []
    for _ in range(3):
        start = time.perf_counter()
        large._repr_html_()
        times.append(time.perf_counter() - start)
    assert min(times) < 0.2
