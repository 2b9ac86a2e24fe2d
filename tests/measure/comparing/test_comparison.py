import csv
import re
from html.parser import HTMLParser

import pandas as pd
import pytest
import torch

import rwkvlab as lab
from rwkvlab.errors import PathError, SaveError
from rwkvlab.measure.comparing.compare import compare
from rwkvlab.measure.comparing.strip import as_pieces
from rwkvlab.tensorfile import read_tensors

SHORT = {"max_tokens": 5, "temperature": 1.0, "top_p": 1.0}
LOADING = {"src", "href", "srcset", "action", "data", "poster", "background", "formaction", "xlink:href", "manifest"}


@pytest.fixture(scope="module")
def result(tiny):
    generator = torch.Generator().manual_seed(0)
    state = lab.State(9 * torch.randn(2, 2, 16, 16, generator=generator), like=tiny).named("文言文")
    return compare(tiny, ["=1+1, <b>now</b>", "月亮"], {"a": state, '"half"': 0.5 * state}, n=2, **SHORT)


class Page(HTMLParser):
    """The tags of a page, its attributes, styles and text."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.style, self.words = [], [], "", ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag  # whatever was opened is closed, in order

    def handle_data(self, data):
        if "style" in self.open:
            self.style += data
        else:
            self.words += data


def test_the_page_is_whole_and_needs_nothing_outside(result, tmp_path):
    path = result.to_html(tmp_path / "a.html")
    text = path.read_text("utf-8")
    page = Page(text)
    assert text.startswith("<!DOCTYPE html>") and not page.open
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "link", "img", "iframe", "object", "embed", "base", "form", "svg", "a"}
    names = {name for _, attributes in page.tags for name in attributes}
    assert not names & LOADING and not [name for name in names if name.startswith("on")]
    assert not re.search(r"url\(|@import|expression|//", page.style) and "://" not in text
    assert ("meta", {"charset": "utf-8"}) in page.tags
    assert any("default-src 'none'" in attributes.get("content", "") for _, attributes in page.tags)
    assert "prefers-color-scheme:dark" in page.style and "@media print" in page.style


def test_the_page_shows_answers_strips_settings_and_cards(result, tmp_path):
    page = Page(result.to_html(tmp_path / "a.html").read_text("utf-8"))
    for text in ("=1+1, <b>now</b>", "月亮", '"half"', "文言文", "zero (the baseline)", "seed 0", "template world"):
        assert text in page.words
    assert result.about["fingerprint"] in page.words and result.starts["sha256"][1] in page.words
    assert "0.5 * 文言文" in page.words
    notes = [note for tag, attributes in page.tags if tag == "span" and (note := attributes.get("title"))]
    texts = dict(list(result.tokens.query("state != 'zero'").groupby(["prompt", "state", "sample", "along"])))
    shown = [
        rows
        for (*key, along), rows in texts.items()
        if along == "own" or rows["id"].tolist() != texts[(*key, "own")]["id"].tolist()
    ]
    assert len(notes) == sum(len(as_pieces(rows)) for rows in shown) and len(shown) > len(texts) / 2
    assert all("nats" in note for note in notes)


def test_the_card_of_a_start_has_the_sum_that_save_state_writes(tiny, random_state, tmp_path):
    state = random_state("a")
    starts = compare(tiny, "hi", [state], max_tokens=1).starts
    lab.save_state(state, tmp_path / "a.safetensors")
    with read_tensors(tmp_path / "a.safetensors") as file:
        assert file.metadata["sha256"] == starts["sha256"][1]
    assert starts["norm"][1] == pytest.approx(float(state.wkv.norm())) and starts["base"][1] == tiny.card.fingerprint
    assert list(starts.loc[0, ["state", "recipe", "norm", "sha256"]]) == ["zero", "zeros", 0.0, ""]


@pytest.mark.parametrize("tokens", [False, True])
def test_tables_come_back_from_csv(result, tmp_path, tokens):
    path = result.to_csv(tmp_path / "a.csv", tokens=tokens)
    want = result.tokens if tokens else result.table
    got = pd.read_csv(path, keep_default_na=False)
    for name in want.select_dtypes(exclude=["number", "bool"]):
        got[name] = got[name].str.removeprefix("'")
    pd.testing.assert_frame_equal(got, want, check_dtype=False, rtol=1e-12)
    cells = [cell for row in csv.reader(path.open(encoding="utf-8-sig", newline="")) for cell in row]
    assert "'=1+1, <b>now</b>" in cells and "=1+1, <b>now</b>" not in cells


def test_files_are_replaced_only_where_they_may_be(result, tmp_path):
    for write in (result.to_html, result.to_csv):
        path = write(tmp_path / "a")
        path.write_text("mine")
        with pytest.raises(SaveError, match="overwrite=True"):
            write(path, overwrite=False)
        assert path.read_text() == "mine" and write(path).read_text("utf-8") != "mine"
        with pytest.raises(PathError, match="no such folder"):
            write(tmp_path / "no" / "a")
        with pytest.raises(PathError):
            write(tmp_path)


def test_a_page_of_one_start_and_of_no_answer_is_a_page(tiny, tmp_path):
    for options in ({"max_tokens": 3}, {"max_tokens": 0}):
        one = compare(tiny, "hi", None, **options)
        page = Page(one.to_html(tmp_path / "a.html").read_text("utf-8"))
        assert not page.open and "hi: 1 startOne model" in page.words
