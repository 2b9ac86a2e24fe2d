"""Tasks from files: what each kind reads, and every mistake with its line."""

import json
import os

import pytest

from rwkvlab.errors import ArgError, FormatError, LimitError, PathError
from rwkvlab.tasks import files
from rwkvlab.tasks.files import load_task


def write(folder, *lines, name="a.jsonl"):
    texts = [line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines]
    (folder / name).write_text("\n".join(texts), encoding="utf-8")
    return folder / name


def test_exact_answers_are_read_in_order_with_blank_lines_and_other_fields_left_out(tmp_path):
    first = {"prompt": "1+1=\u2028", "answer": "2", "source": {"a": [1]}}
    path = write(tmp_path, "\ufeff" + json.dumps(first), "", "  \r", {"answer": "文", "prompt": "x"})
    task = load_task(path, template="world")
    assert (task.name, task.kind, task.template) == ("a", "exact", "world")
    assert (task.prompts, task.answers) == (("1+1=\u2028", "x"), ("2", "文"))
    assert load_task(str(path), name="mine").name == "mine"


def test_an_answer_among_choices_is_a_text_or_an_index(tmp_path):
    rows = [{"question": "q", "choices": ["a", "b", "c"], "answer": answer} for answer in (2, "b", 0)]
    task = load_task(write(tmp_path, *rows), "choice", normalise="byte")
    assert task.answers == ("c", "b", "a") and task.choices == (("a", "b", "c"),) * 3
    assert (task.kind, task.normalise) == ("choice", "byte")


def test_the_last_word_comes_with_the_blank_before_it(tmp_path):
    task = load_task(write(tmp_path, "so it was her  name ", {"text": "{a} b"}, "一 二"), "last word")
    assert task.prompts == ("so it was her", "{a}", "一") and task.answers == ("  name", " b", " 二")


def test_texts_stay_as_they_are(tmp_path):
    path = write(tmp_path, " two words ", "[not JSON]", {"text": "a\nb"})
    task = load_task(path, "text", context=">")
    assert task.answers == (" two words ", "[not JSON]", "a\nb") and task.prompts == (">",) * 3


GOOD = {
    "exact": {"prompt": "a", "answer": "b"},
    "choice": {"question": "a", "choices": ["b", "c"], "answer": 0},
    "last word": {"text": "a b"},
    "text": {"text": "a"},
}
BAD = [
    ("exact", "plain text", "not JSON at character 1; need one JSON object a line"),
    ("exact", "[1]", "got 'list'"),
    ("exact", '{"prompt": "a"}', "answer: no such field"),
    ("exact", '{"prompt": "a", "answer": ""}', "answer: ''"),
    ("exact", '{"prompt": "a", "answer": 5}', "answer: '5'"),
    ("exact", '{"prompt": "a", "answer": null}', "answer: 'None'"),
    ("exact", '{"prompt": "a", "prompt": "b", "answer": "c"}', "a name is there twice"),
    ("exact", '{"prompt": NaN, "answer": "c"}', "NaN is not JSON"),
    ("exact", '{"prompt": "\\ud800", "answer": "c"}', "half of a surrogate pair"),
    ("exact", '{"prompt": "a", "answer": "c", "x": ["\\uDFff"]}', "half of a surrogate pair"),
    ("exact", '{"prompt": "\x1b[31m", "answer": "c"}', "not JSON at character 13"),
    ("exact", '{"prompt": ' + "[" * 50_000 + "]" * 50_000 + "}", "nested too deep"),
    ("exact", '{"prompt": ' + "9" * 5000 + "}", "nested too deep or a number too long"),
    ("choice", '{"question": "a", "choices": ["b"], "answer": 0}', "need two different"),
    ("choice", '{"question": "a", "choices": ["b", "b"], "answer": 0}', "need two different"),
    ("choice", '{"question": "a", "choices": ["b", 3], "answer": 0}', "need two different"),
    ("choice", '{"question": "a", "choices": ["b", "c"], "answer": 2}', "an index of 0 … 1"),
    ("choice", '{"question": "a", "choices": ["b", "c"], "answer": -1}', "an index of 0 … 1"),
    ("choice", '{"question": "a", "choices": ["b", "c"], "answer": true}', "answer: 'True'"),
    ("choice", '{"question": "a", "choices": ["b", "c"], "answer": "A"}', "'A' is none of the choices"),
    ("choice", '{"question": "a", "choices": "bc", "answer": 0}', "choices: 'bc'"),
    ("last word", "word", "need two words"),
    ("last word", '{"text": " word "}', "need two words"),
    ("text", '{"texts": "a"}', "text: no such field"),
    ("text", "{not JSON}", "not JSON at character 2"),
]


@pytest.mark.parametrize(("kind", "line", "said"), BAD)
def test_a_bad_line_is_named_by_its_number(tmp_path, kind, line, said):
    path = write(tmp_path, GOOD[kind], "", line, GOOD[kind])
    with pytest.raises(FormatError) as caught:
        load_task(path, kind)
    text = str(caught.value)
    assert text.startswith("'a.jsonl': line 3: ") and said in text
    assert text.isprintable() and len(text) < 400


def test_a_line_of_many_small_things_is_refused_before_it_is_read(tmp_path):
    with pytest.raises(LimitError, match="line 1: more than 100,000"):
        load_task(write(tmp_path, '{"prompt": [' + "[]," * 60_000 + "]}"))
    with pytest.raises(LimitError, match="1,001, at most 1,000"):
        load_task(write(tmp_path, {"question": "a", "choices": list(map(str, range(1001))), "answer": 0}), "choice")


def test_files_that_cannot_be_are_told(tmp_path, monkeypatch):
    empty = write(tmp_path, "", " ")
    with pytest.raises(FormatError, match="holds no examples"):
        load_task(empty)
    (tmp_path / "latin").write_bytes(b'{"prompt": "a"}\n"\xff"')
    with pytest.raises(FormatError, match="line 2: not UTF-8 at byte 17"):
        load_task(tmp_path / "latin")
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path / "none", tmp_path, tmp_path / "pipe", "/dev/zero", 3, None, "", "a\0b", b"a"):
        with pytest.raises(PathError):
            load_task(path)
    monkeypatch.setattr(files, "MAX_BYTES", 10)
    with pytest.raises(LimitError, match="over 10 bytes"):
        load_task(write(tmp_path, GOOD["exact"]))


def test_a_file_of_too_many_lines_is_refused_before_any_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr(files, "MAX_EXAMPLES", 3)
    for line in ("no JSON", ""):
        with pytest.raises(LimitError, match="4 lines, at most 3 examples are read; give a part"):
            load_task(write(tmp_path, *[line] * 3, "x"))
    assert len(load_task(write(tmp_path, *[GOOD["exact"]] * 3))) == 3
    assert len(load_task(write(tmp_path, *[GOOD["exact"]] * 3, ""))) == 3


def test_letters_beyond_16_bits_are_read_however_they_are_written(tmp_path):
    task = load_task(write(tmp_path, '{"prompt": "\\ud83d\\uDE00", "answer": "😀"}'))
    assert task.prompts == task.answers == ("😀",)


def test_arguments_are_checked(tmp_path):
    path = write(tmp_path, GOOD["exact"])
    for wrong in ({"kind": "style"}, {"normalise": "letter"}, {"template": "wurld"}):
        with pytest.raises(ArgError, match="need"):
            load_task(path, **wrong)
