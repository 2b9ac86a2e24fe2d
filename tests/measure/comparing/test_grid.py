import re
from html.parser import HTMLParser

import pytest

from rwkvlab.measure.comparing.grid import html_grid, html_text, text_grid, text_width

HOSTILE = [
    "<script>alert(1)</script>",
    "</td></table><img src=x onerror=alert(1)>",
    '" onmouseover="alert(1)',
    "a\x1b]8;;http://x\x07link\x1b[31m",
    "safe\u202etxt.exe",
    "&lt;b&gt;",
    "<mark>not ours</mark>",
]


class Tags(HTMLParser):
    def __init__(self, html):
        super().__init__()
        self.seen, self.text = [], ""
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, tuple(attrs)))

    def handle_data(self, data):
        if self.seen and self.seen[-1][0] != "style":
            self.text += data


@pytest.mark.parametrize("text", HOSTILE)
def test_no_tag_or_attribute_comes_from_the_data(text):
    harmless = Tags(html_grid(["a", "b"], [("p", [html_text("x"), html_text("y")])], "c"))
    hostile = Tags(html_grid([text, text], [(text, [html_text(text), html_text(text + "!")])], text))
    assert hostile.seen == harmless.seen
    assert not re.search(r"[\x00-\x08\x0b-\x1f\u202a-\u202e]", hostile.text)
    assert (text if text.isprintable() else text.split("\x1b")[0][:4]) in hostile.text


def test_the_first_column_is_pinned_and_called_the_baseline():
    page = html_grid(["a", "b"], [("p", ["<i>x</i>", "y"])])
    assert re.findall(r'<t[hd] class="pinned">(.*?)</t[hd]>', page) == ["a <small>baseline</small>", "<i>x</i>"]
    assert "<th>b</th>" in page and "<td>y</td>" in page and "<th>p</th>" in page


def test_plain_columns_stay_straight_whatever_the_letters():
    text = text_grid(["zero", "文言文"], [("你好", ["a\nb", "世界 peace"]), ("hello", ["\x1b[31m", "e\u0301te\u0301"])])
    lines = text.splitlines()
    assert [text_width(line.rstrip()) for line in lines][1] == max(text_width(line) for line in lines)
    starts = {
        text_width(line[: line.index(word)])
        for line, word in zip(lines, ["文", "-" * 10, "世", "e\u0301"], strict=True)
    }
    assert len(starts) == 1
    assert "a⏎b" in text and "\x1b" not in text


def test_long_texts_are_cut_to_fit_a_line():
    text = text_grid(["a", "b", "c"], [("p" * 90, ["x" * 500, "文" * 500, "z"])])
    assert max(map(text_width, text.splitlines())) <= 100
    assert "…" in text
