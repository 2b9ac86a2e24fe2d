"""A file of texts: plain lines and JSON, every mistake with its line."""

import pytest

from rwkvlab.cli.texts import read_texts
from rwkvlab.errors import ArgError, FormatError, PathError


def test_plain_lines_and_json_lines_are_read(tmp_path):
    path = tmp_path / "t.jsonl"
    lines = '\ufeff{"question": "1+1?", "answer": "2"}\n\n{"text": "走\u2028吧"}\nplain [text]\r\n'
    lines += '{"prompt": "a>", "answer": "b"}'
    path.write_bytes(lines.encode())
    assert read_texts(path) == [("1+1?", "2"), "走\u2028吧", "plain [text]", {"prompt": "a>", "answer": "b"}]


@pytest.mark.parametrize("space", ["", "\n", " "])
def test_a_json_array_of_one_or_many_lines_is_read(tmp_path, space):
    path, items = tmp_path / "t.json", '[["1+1?", "2"],%s{"question": "走", "answer": "吧"}, {"text": "a"}, "b c"]'
    for between in (" ", "\n", "\r\n\n  "):
        path.write_text(space + items % between + "\n", encoding="utf-8-sig")
        assert read_texts(path) == [("1+1?", "2"), ("走", "吧"), "a", "b c"]


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (b'["ok", ["q", "a", "b"]]', "item 1: need"),
        (b'["ok", ["q", ""]]', "item 1: answer is empty"),
        (b'["ok",\n {"question": "a"}]', "item 1: need"),
        (b'["ok", 5]', "item 1: need"),
        (b'["ok", [5, "a"]]', "item 1: need"),
        (b'["ok", ""]', "item 1: text is empty"),
        (b'["ok",\n "b",]', "line 2 is not JSON"),
        (b'["q", "a"]\n["q", "a"]', "line 2 is not JSON"),
        (b"[Intro] hello\nmore", 'write {"text": "['),
        (b'["a"], "x": ["b"]', "line 1 is not JSON"),
        (b'[{"text": "a", "text": "b"}]', "'text' is there twice; correct it"),
        (b"[" * 5000 + b"]" * 5000, "nested too deep"),
        (b'{"question": "a", "answer": ""}', "line 1: answer is empty"),
        (b'{"text": ""}', "line 1: text is empty"),
        (b'{"text": "a"', "not JSON at character 12; correct it"),
        (b'{"question": "a"}', "line 1: need"),
        (b'ok\n{"question": "a", "answer": 5}', "line 2: need"),
        (b'{"text": ["a"]}', "line 1: need"),
        (b'{"prompt": "a"}', "line 1: need"),
        (b'{"prompt": "a", "answer": ""}', "line 1: answer is empty"),
        (b'{"prompt": 5, "answer": "a"}', "line 1: need"),
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
    (tmp_path / "t").write_text("[]")
    with pytest.raises(ArgError, match="holds no texts"):
        read_texts(tmp_path / "t")
    with pytest.raises(PathError, match="is a folder; give the path of a text file"):
        read_texts(tmp_path)
    (tmp_path / "empty").touch()
    with pytest.raises(PathError, match="is empty; write texts into it"):
        read_texts(tmp_path / "empty")
    with pytest.raises(PathError, match="no such file"):
        read_texts(tmp_path / "none")
