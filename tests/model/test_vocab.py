"""Vocabulary files: what is read, what is refused and on which line, and our own encoder and decoder."""

import os
import random

import pytest

from rwkvlab.errors import PathError, PromptError, VocabError
from rwkvlab.model.vocab import VocabTokenizer, parse_vocab, read_vocab

SMALL = {1: b"a", 2: b"ab", 3: b"abcd", 4: b"b", 5: b"c", 6: "你".encode(), 7: "你好".encode(), 8: b" ", 9: b"\n"}


def small():
    return VocabTokenizer("small", SMALL)


def line(index, token):
    return f"{index} {token!r} {len(token.encode() if isinstance(token, str) else token)}\n"


def test_a_file_gives_the_bytes_of_each_id(tmp_path):
    path = tmp_path / "vocab.txt"
    path.write_text(line(1, "a") + line(3, "你好") + line(7, b"\xc3\xa9") + line(9, "a b\n'\""), encoding="utf-8")
    assert read_vocab(path) == {1: b"a", 3: "你好".encode(), 7: b"\xc3\xa9", 9: b"a b\n'\""}


def test_windows_line_ends_and_a_byte_order_mark_are_accepted():
    assert parse_vocab(b"\xef\xbb\xbf1 'a' 1\r\n2 'b' 1\r\n", "v") == {1: b"a", 2: b"b"}


@pytest.mark.parametrize(
    "bad",
    [
        "2 __import__('os').system('true') 1",
        "2 'a' + 'b' 2",
        "2 f'a' 1",
        "2 [97] 1",
        "2 1 1",
        "2 None 1",
        "2 " + "[" * 900 + " 1",
        "2 " + "-" * 900 + "1 1",
        "2 '" + "x" * 5000 + "' 5000",
        "1 'b' 1",
        "2 'a' 1",
        "-2 'b' 1",
        "0 'b' 1",
        "100000000000 'b' 1",
        "2 'b' 2",
        "2 '' 0",
        r"2 '\ud800' 3",
        r"2 '\q' 2",
        "٢ 'b' 1",
        "2 'b'",
        "2",
        "",
        "2 'b",
        "2 'b' 1 ",
        "2 'b' 0x1",
    ],
)
def test_a_bad_line_is_refused_with_its_number(bad):
    with pytest.raises(VocabError, match="vocab: line 2: ") as caught:
        parse_vocab(("1 'a' 1\n" + bad + "\n3 'c' 1\n").encode(), "vocab")
    assert len(str(caught.value)) < 400


def test_bytes_that_are_not_utf8_are_refused_with_their_line():
    with pytest.raises(VocabError, match="line 1: not UTF-8 at byte 3"):
        parse_vocab(b"1 '\xff' 1\n", "vocab")


def test_a_vocabulary_for_any_text_needs_every_byte():
    every = "".join(line(i + 1, bytes([i])) for i in range(256))
    assert len(parse_vocab(every.encode(), "v")) == 256
    without = every.replace(line(0x42, b"A"), "")
    with pytest.raises(VocabError, match="byte 0x41 has no token"):
        parse_vocab(without.encode(), "v")


@pytest.mark.parametrize("content", [b"", b"\n"])
def test_an_empty_file_is_refused(content):
    with pytest.raises(VocabError):
        parse_vocab(content, "v")


def test_what_is_not_a_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "none.txt", tmp_path / "pipe", "bad\0name"):
        with pytest.raises(PathError):
            read_vocab(path)


def test_the_longest_token_wins():
    assert small().encode("abcd") == [3]
    assert small().encode("abc") == [2, 5]
    assert small().encode("aab你你好") == [1, 2, 6, 7]
    assert small().encode("") == []


def test_a_character_outside_the_vocabulary_is_named_with_its_position():
    with pytest.raises(PromptError, match=r"'好' \(character 2\)"):
        small().encode("你a好")
    with pytest.raises(PromptError, match=r"'z' \(character 4\)"):
        small().encode("你abcz")


def test_an_unknown_id_is_named():
    for call in (small().decode, lambda ids: [small().decoder().push(i) for i in ids]):
        with pytest.raises(PromptError, match="token '77'"):
            call([1, 77])


def test_end_of_text_decodes_to_nothing():
    assert small().decode([1, 0, 4]) == "ab"


def test_a_lone_surrogate_is_refused_with_its_position():
    with pytest.raises(PromptError, match=r"U\+D83D at character 2"):
        small().encode("ab\ud83d")


def test_holes_are_the_ids_without_text():
    assert VocabTokenizer("v", {1: b"a", 4: b"b"}).holes(7) == [2, 3, 5, 6]


def test_a_split_character_comes_out_whole_and_late():
    tokenizer = VocabTokenizer("bytes", {i + 1: bytes([i]) for i in range(256)})
    decoder = tokenizer.decoder()
    assert [decoder.push(i) for i in tokenizer.encode("a你b")] == ["a", "", "", "你", "b"]
    assert decoder.flush() == ""


def test_streamed_pieces_join_to_the_whole_for_any_tokens():
    tokenizer = VocabTokenizer(
        "v", {**{i + 1: bytes([i]) for i in range(256)}, 300: "你好".encode()[1:5], 301: b"\xe4"}
    )
    rng = random.Random(0)
    ids = [*tokenizer.encode("é你😀z"), 300, 301, 0, 0xC3 + 1, 0xF0 + 1, 0xFF + 1]
    for _ in range(3000):
        tokens = [rng.choice(ids) for _ in range(rng.randrange(12))]
        decoder = tokenizer.decoder()
        pieces = [decoder.push(i) for i in tokens] + [decoder.flush()]
        assert "".join(pieces) == tokenizer.decode(tokens)
