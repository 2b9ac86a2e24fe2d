"""`rwkvlab diff`: a page for people, JSON for programs."""

import json

import pytest
import torch

import rwkvlab as lab
from rwkvlab.cli import main
from rwkvlab.measure.diff import diff


@pytest.fixture
def files(tmp_path, random_state):
    """Two states of the tiny model, and one of a wider one."""
    one = lab.save_state(random_state("emoji"), tmp_path / "emoji.pth")
    two = lab.save_state(random_state("文言文", 1), tmp_path / "文言文.state")
    return one, two, lab.save_state(lab.State(torch.ones(2, 3, 16, 16)), tmp_path / "wide.pth")


def test_two_files_are_told_on_one_page(files, capsys):
    assert main(["diff", str(files[0]), str(files[1])]) == 0
    out = capsys.readouterr().out
    assert out == f"{diff(*files[:2])!r}\n"
    assert "'emoji'" in out and "'文言文'" in out and "4 of 4 heads differ" in out


def test_json_holds_everything(files, capsys):
    assert main(["diff", str(files[0]), str(files[1]), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found == json.loads(json.dumps(diff(*files[:2]).to_dict()))
    assert len(found["heads"]) == 4 and found["b"]["file"] == "文言文.state"


def test_with_a_model_what_it_reads_is_compared(files, tiny_file, tmp_path, capsys):
    (tmp_path / "texts.txt").write_text("eleven ships\nand one more\n")
    model = ["--model", str(tiny_file), "--tokenizer", "bytes"]
    assert main(["diff", *map(str, files[:2]), *model, "--texts", str(tmp_path / "texts.txt")]) == 0
    assert "read-outs (rms over 24 tokens)" in capsys.readouterr().out
    assert main(["diff", *map(str, files[:2]), *model]) == 0
    assert "read-outs (rms over" in capsys.readouterr().out


def test_files_that_do_not_go_together_are_described(files, tiny_file, capsys):
    assert main(["diff", str(files[0]), str(files[2]), "-m", str(tiny_file), "--tokenizer", "bytes"]) == 0
    out = capsys.readouterr().out
    assert "shapes differ" in out and "the read-outs are not compared" in out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["nowhere.pth"], "nowhere.pth"),
        (["{one}", "--texts", "a.txt"], "--texts: "),
        (["{one}", "-m", "no.pth"], "no.pth"),
    ],
)
def test_a_mistake_is_one_line(files, capsys, more, words):
    assert main(["diff", str(files[0]), *(word.replace("{one}", str(files[1])) for word in more)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("rwkvlab: error: ") and words in err and err.count("\n") == 1
