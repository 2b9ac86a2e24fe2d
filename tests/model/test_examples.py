"""Training examples: what of each form is read and counted, and how those that cannot be used are named."""

import json

import pytest

from rwkvlab.errors import ArgError, FormatError, PathError, TuneError
from rwkvlab.model.engine import Model
from rwkvlab.model.example_files import read_examples
from rwkvlab.model.examples import encode_examples
from rwkvlab.model.random_weights import random_weights
from rwkvlab.model.weights import Checkpoint
from rwkvlab.shapes import Dims


@pytest.fixture(scope="module")
def model():
    """One whose tokens are bytes."""
    dims = Dims("x070", L=1, H=1, C=8, K=8, V=8, ffn=16, vocab=257)
    return Model(Checkpoint(dims, random_weights(dims, {"w": 4, "a": 4, "v": 4, "g": 4}), "5a" * 32), "random")


def counted(model, example, **options):
    """What is read before the end of text, and what of it counts, the rest as bars."""
    (found,) = encode_examples(model, [example], **options)
    assert found.ids[-1] == 0
    assert found.wanted[-1]
    assert not found.wanted[0]
    text = "".join(
        model.tokenizer.decode([i]) if w else "_" for i, w in zip(found.ids[:-1], found.wanted, strict=False)
    )
    return model.tokenizer.decode(found.ids[:-1]), text


def test_of_a_pair_the_answer_counts(model):
    for example in (("ab", "cd"), ["ab", "cd"], {"prompt": "ab", "answer": "cd"}):
        assert counted(model, example) == ("abcd", "__cd")


def test_of_a_text_all_but_its_first_token_counts(model):
    for example in ("abcd", {"text": "abcd"}, {"text": "abcd", "source": "x"}):
        assert counted(model, example) == ("abcd", "_bcd")


def test_of_a_conversation_the_assistant_counts(model):
    said = [("user", "hi"), ("assistant", "yo"), ("user", "a\n\nb"), ("assistant", "c")]
    messages = [{"role": role, "content": content} for role, content in said]
    text = "User: hi\n\nAssistant: yo\n\nUser: a\nb\n\nAssistant: c\n\n"
    told = "_" * len("User: hi\n\nAssistant:") + " yo\n\n" + "_" * len("User: a\nb\n\nAssistant:") + " c\n\n"
    assert counted(model, {"messages": messages}) == (text, told)
    assert counted(model, {"messages": messages[:2]}, template="raw") == ("hiyo", "__yo")


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ({"prompt": "a"}, r"need a \(prompt, answer\) pair"),
        ({"text": 5}, 'need a text under "text", got .5'),
        ({"prompt": "a", "answer": None}, 'need a text under "answer"'),
        ({"messages": []}, "messages: need user and assistant"),
        ({"messages": [{"role": "user", "content": "a"}]}, "messages: need user and assistant"),
        ({"messages": [{"role": "system", "content": "a"}] * 2}, r"messages\[0\]: need"),
        ({"messages": [{"role": "user", "content": "a"}, 5]}, r"messages\[1\]: need"),
        ({"messages": [{"role": "user", "content": " "}, {"role": "assistant", "content": "b"}]}, "empty"),
        ("", "the text needs at least one token"),
        ({"text": ""}, "the text needs at least one token"),
        (("a", ""), "prompt and answer need at least one token each"),
        (b"ab", "need a"),
        (None, "need a"),
    ],
)
def test_what_cannot_be_used_is_named(model, example, message):
    with pytest.raises(TuneError, match=rf"examples\[1\]: .*{message}"):
        encode_examples(model, ["ok", example])


def test_jsonl_is_read_line_by_line(tmp_path):
    path = tmp_path / "data.jsonl"
    lines = [{"text": "a\u2028b"}, {"prompt": "p", "answer": "表"}]
    path.write_text("\ufeff" + "\r\n\n".join(json.dumps(x, ensure_ascii=False) for x in lines) + "\n", "utf-8")
    assert read_examples(path) == lines


@pytest.mark.parametrize(
    ("raw", "error", "message"),
    [
        (b'{"text": "a"}\n{"text": ', FormatError, "data.jsonl.: line 2: not JSON"),
        (b'{"text": "a"}\n["a", "b"]', FormatError, "data.jsonl.: line 2: need an object"),
        (b'{"text": "a", "text": "b"}', FormatError, r"line 1: .*text.* is there twice"),
        (b"\xff", FormatError, "not UTF-8 at byte 0"),
        (b" \n\n", ArgError, "holds no examples"),
        (b'{"text": ' + b"[" * 100_000, FormatError, "line 1"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path, raw, error, message):
    path = tmp_path / "data.jsonl"
    path.write_bytes(raw)
    with pytest.raises(error, match=message):
        read_examples(path)


def test_a_missing_file_is_a_path_error(tmp_path):
    with pytest.raises(PathError, match="missing"):
        read_examples(tmp_path / "missing.jsonl")
