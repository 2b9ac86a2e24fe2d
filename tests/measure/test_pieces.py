import unicodedata
from types import SimpleNamespace

import torch

from rwkvlab.measure.pieces import pieces
from rwkvlab.model.engine import load_model
from rwkvlab.model.random_weights import random_weights
from rwkvlab.model.vocab import VocabTokenizer
from rwkvlab.shapes import Dims


def ids_of(model, text):
    return model.encode(text)


def test_letters_stay_and_parts_of_characters_are_bytes(tiny):
    assert pieces(tiny, ids_of(tiny, "a b\n")) == ["a", " ", "b", "⏎"]
    assert pieces(tiny, ids_of(tiny, "文")) == ["\\xe6", "\\x96", "\\x87"]
    assert pieces(tiny, ids_of(tiny, "\\x1b\x1b")) == ["\\", "x", "1", "b", "\\x1b"]
    text = VocabTokenizer("some", {1: b" the", 2: b" \xe6\x96", 3: "文言\t".encode()})
    assert pieces(SimpleNamespace(tokenizer=text), [1, 2, 3, 4]) == [" the", " \\xe6\\x96", "文言\\x09", "[4]"]
    assert pieces(tiny, [0, 66]) == ["[0]", "A"]  # end of text has none
    assert pieces(tiny, []) == []


def test_every_id_has_a_printable_piece(tiny):
    for piece in pieces(tiny, range(tiny.dims.vocab)):
        assert piece and all(unicodedata.category(c)[0] not in "CZ" or c == " " for c in piece)


class Broken:
    def encode(self, text):
        return [1]

    def decode(self, ids):
        if ids == [7]:
            raise RuntimeError("no such token")
        return {1: "\x1b[31m", 2: "\ufffd", 3: None, 4: "ok\u202e"}[ids[0]]


def test_whatever_the_tokenizer_does_there_is_a_piece(tmp_path, tiny_file):
    model = load_model(tiny_file, tokenizer=Broken())
    assert pieces(model, [1, 2, 3, 4, 5, 7]) == ["\\x1b[31m", "[2]", "None", "ok\\u202e", "[5]", "[7]"]
    dims = Dims("x070", L=1, H=1, C=8, K=8, V=8, ffn=16, vocab=31)
    torch.save(random_weights(dims, {"w": 2, "a": 2, "v": 2, "g": 2}), tmp_path / "a.pth")
    assert pieces(load_model(tmp_path / "a.pth"), [3, 30]) == ["[3]", "[30]"]  # no tokenizer for 31 ids
