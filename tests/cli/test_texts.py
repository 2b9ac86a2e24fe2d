"""A file of texts: plain lines and JSON, every mistake with its line."""

import pytest

from rwkvlab.cli.texts import read_texts
from rwkvlab.errors import ArgError, FormatError, PathError


def test_plain_lines_and_json_lines_are_read(tmp_path):
    path = tmp_path / "t.jsonl"
    lines = '\ufeff{"question": "1+1?", "answer": "2"}\n\n{"text": "走\u2028吧"}\nplain [text]\r\n'
    path.write_bytes(lines.encode())
    assert read_texts(path) == [("1+1?", "2"), "走\u2028吧", "plain [text]"]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b'{"question": "a"}', "line 1: need"),
        (b'ok\n{"question": "a", "answer": 5}', "line 2: need"),
        (b'{"text": ["a"]}', "line 1: need"),
        (b'ok\n\n{"text": "a"', "line 3: not JSON"),
        (b'{"text": "a", "text": "b"}', "'text' is there twice"),
        (b'{"a":' * 5000 + b"1" + b"}" * 5000, "nested too deep"),
        ("GBK 问".encode("gbk"), "not UTF-8 at byte 4"),
    ],
)
def test_a_mistake_is_named_with_its_line(tmp_path, raw, words):
    (tmp_path / "t.jsonl").write_bytes(raw)
    with pytest.raises(FormatError, match=r"'t\.jsonl'") as caught:
        read_texts(tmp_path / "t.jsonl")
    assert words in str(caught.value) and len(str(caught.value)) < 400


def test_no_texts_too_many_bytes_and_no_file_are_errors(tmp_path):
    (tmp_path / "t").write_text("\n \n")
    with pytest.raises(ArgError, match="holds no texts"):
        read_texts(tmp_path / "t")
    (tmp_path / "t").write_bytes(b"x" * (16 << 20) + b"x")
    with pytest.raises(ArgError, match="at most"):
        read_texts(tmp_path / "t")
    with pytest.raises(PathError, match="no such file"):
        read_texts(tmp_path / "none")
