"""A state shows itself in a line and in a block of HTML, and no text from outside acts there."""

import base64
import html.parser
import io
import re
import time

import matplotlib.image
import pytest
import torch

from rwkvlab.states.card import StateCard
from rwkvlab.states.render import COLOUR, escape, head_map, size_text, sparkline
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
    assert text.startswith("<State '文言文' RWKV-7 L3 H1 V2 K4, 96 bytes, norm 65.8 ")
    assert text.endswith("▂▅█>")
    assert repr(State(torch.zeros(2, 1, 2, 2))).endswith("norm 0 ▁▁>")
    assert "nan" in repr(State(torch.full((2, 1, 2, 2), float("nan"))))


def test_sizes_stand_in_a_unit_that_suits_them():
    sizes = (0, 1023, 1024, 2**20 - 1, 2.25 * 2**20, 150 * 2**20, 3 * 2**30)
    assert [*map(size_text, sizes)] == ["0 bytes", "1023 bytes", "1.0 KiB", "1024 KiB", "2.2 MiB", "150 MiB", "3.0 GiB"]


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_nan_in_any_layer_is_seen_and_breaks_nothing(bad):
    wkv = torch.ones(3, 2, 2, 2)
    wkv[bad, 1, 0, 0] = float("nan")
    broken = State(wkv)
    bars = "███"
    assert repr(broken).endswith(f"norm nan {bars[:bad]}?{bars[bad + 1 :]}>")
    assert pixels(broken._repr_html_())[bad, 1, 3] == 255
    assert f"layer {bad}, head 1: norm nan" in broken._repr_html_()


@pytest.mark.parametrize("scale", [1e-30, 1e-18, 1.0, 1e25, 1e37])
def test_the_norm_is_right_where_squares_leave_the_range_of_fp32(scale):
    text = repr(State(torch.full((2, 1, 2, 2), scale)))
    assert float(re.search(r"norm (\S+) ██>", text)[1]) == pytest.approx(scale * 8**0.5, rel=1e-2)


def test_a_sparkline_may_be_drawn_on_a_scale_that_is_given():
    assert sparkline([0.0, 1.0, 8.0]) == "▁▂█"
    assert sparkline([0.0, 1.0], 2.0) == "▁▅"
    assert sparkline([0.0, float("inf"), float("nan")]) == "▁??"
    assert sparkline([]) == ""


def pixels(page):
    """The picture in a page as an array [L,H,4] of bytes."""
    data = re.search(r"data:image/png;base64,([^\"]+)", page)[1]
    return (matplotlib.image.imread(io.BytesIO(base64.b64decode(data))) * 255).round()


def test_the_map_has_a_pixel_for_each_head_the_more_opaque_the_larger():
    seen = pixels(head_map([[0.0, 1.0, 2.0], [4.0, float("inf"), 3.0]], "norm"))
    assert seen.shape == (2, 3, 4)
    assert seen[..., 3].tolist() == [[0, 64, 128], [255, 255, 191]]
    assert tuple(seen[0, 2, :3]) == tuple(seen[1, 0, :3]) == COLOUR != tuple(seen[1, 1, :3])


def test_every_head_has_its_number_in_a_tooltip_however_many_there_are():
    few = head_map([[1.0, 2.0], [3.0, 4.5]], "norm")
    assert re.findall("<title>(.*?)</title>", few)[-1] == "layer 1, head 1: norm 4.5"
    assert few.count("<title>") == 4
    values = torch.rand(61, 64, generator=torch.Generator().manual_seed(0)).tolist()
    titles = re.findall(
        "<title>layer ([0-9]+), heads ([0-9]+) to ([0-9]+): norm (.*?)</title>", head_map(values, "norm")
    )
    assert len(titles) == 61 * 8
    told = [[] for _ in values]
    for layer, first, last, numbers in titles:
        assert len(told[int(layer)]) == int(first)
        told[int(layer)] += map(float, numbers.split())
        assert len(told[int(layer)]) == int(last) + 1
    assert told == [[float(f"{value:.3g}") for value in row] for row in values]


def test_the_tooltips_cover_the_map_where_heads_do_not_divide_evenly():
    page = head_map([[1.0] * 33 for _ in range(40)], "norm")
    parts = [tuple(map(int, found)) for found in re.findall(r"M([0-9]+) ([0-9]+)h([0-9]+)v([0-9]+)h", page)]
    width, height = map(int, re.search(r'width="([0-9]+)" height="([0-9]+)"', page).groups())
    assert sum(w * h for _, _, w, h in parts) == width * height
    assert max(x + w for x, _, w, _ in parts) == width and max(y + h for _, y, _, h in parts) == height


def test_the_block_holds_the_card_and_a_bar_for_each_layer():
    text = state()._repr_html_()
    assert text.count("<rect") == 3
    for word in (
        "文言文",
        "RWKV-7",
        "L3 H1 V2 K4",
        "abababab",
        "layer 2: norm",
        "head 0: norm",
        "parents",
        "more notes",
    ):
        assert word in text
    assert "<svg" not in State(torch.zeros(2, 1, 2, 2))._repr_html_()


@pytest.mark.parametrize("text", HOSTILE, ids=range(len(HOSTILE)))
def test_text_from_outside_cannot_act(text):
    shown, line = state(text)._repr_html_(), repr(state(text))
    assert tags(shown) == tags(state()._repr_html_())
    assert shown.isprintable()
    assert line.isprintable()
    assert len(shown) < 13_000
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
    for _ in range(5):
        start = time.perf_counter()
        repr(large)
        page = large._repr_html_()
        times.append(time.perf_counter() - start)
    assert min(times) < 0.05  # 8 ms on a quiet core
    assert len(page) < 100_000
