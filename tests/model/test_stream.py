"""TextStream and Trim: stop strings over token boundaries, nothing of them shown, pieces join to the text."""

import random

import pytest

from rwkvlab.model.stream import TextStream, Trim
from rwkvlab.model.vocab import VocabTokenizer

BYTES = VocabTokenizer("bytes", {i + 1: bytes([i]) for i in range(256)})


def feed(text, stops):
    stream = TextStream(BYTES.decoder(), stops)
    pieces = []
    for token in BYTES.encode(text):
        pieces.append(stream.push(token))
        if stream.stopped:
            break
    pieces.append(stream.flush())
    assert "".join(pieces) == stream.text
    return stream, pieces


def test_a_stop_string_over_many_tokens_is_cut_and_never_shown():
    stream, pieces = feed("ab\n\nUser: more", ["\n\nUser:"])
    assert (stream.text, stream.stopped) == ("ab", True)
    assert pieces == ["a", "b", *[""] * 7, ""]


def test_what_only_looked_like_a_stop_is_given_out_late():
    stream, pieces = feed("a\nb\n", ["\n\n"])
    assert pieces == ["a", "", "\nb", "", "\n"]
    assert not stream.stopped


def test_overlapping_beginnings_are_found():
    assert feed("aaab", ["aab"])[0].text == "a"
    assert feed("ababac!", ["abac"])[0].text == "ab"


def test_a_stop_string_may_hold_any_character():
    stream, pieces = feed("你好。再见", ["。再"])
    assert stream.text == "你好"
    assert "\ufffd" not in "".join(pieces)


def test_cutting_does_not_depend_on_the_tokens():
    rng = random.Random(0)
    for _ in range(500):
        text = "".join(rng.choice("abc") for _ in range(12))
        stops = ["".join(rng.choice("abc") for _ in range(rng.randrange(1, 4))) for _ in range(2)]
        whole = TextStream(VocabTokenizer("v", {1: text.encode()}).decoder(), stops)
        whole.push(1)
        whole.flush()
        ends = [(text.find(s) + len(s), text.find(s)) for s in stops if s in text]
        assert whole.text == feed(text, stops)[0].text == (text[: min(ends)[1]] if ends else text)


@pytest.mark.parametrize(
    ("text", "lead", "want"),
    [
        (" hello  world \n\n", " ", "hello  world"),
        (">\n你好 ", ">\n", "你好"),
        ("\n> >x", ">", ">x"),
        ("<nothing", "<think>", "<nothing"),
        ("<th", "<think>", "<th"),
        (" \n ", ">", ""),
        ("", "", ""),
    ],
)
def test_trimming_in_pieces_is_trimming_the_whole(text, lead, want):
    rng = random.Random(0)
    for _ in range(20):
        trim, rest, out = Trim(lead), text, ""
        while rest:
            size = rng.randrange(1, 4)
            out, rest = out + trim.push(rest[:size]), rest[size:]
        assert out + trim.flush() == want
