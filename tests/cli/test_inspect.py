"""`rwkvlab inspect`: a block for one file, a table for many, JSON for programs."""

import json

import pytest
import torch

import rwkvlab as lab
from rwkvlab.cli import main


@pytest.fixture
def folder(tmp_path, random_state):
    """Two states, one of them for a wider model, a page, and a text that nobody asked for."""
    lab.save_state(random_state("emoji"), tmp_path / "文言文.pth")
    lab.save_state(lab.State(torch.ones(2, 3, 16, 16)), tmp_path / "wide.state")
    (tmp_path / "page.pth").write_text("<html>not found</html>")
    (tmp_path / "notes.txt").write_text("nothing")
    return tmp_path


def test_one_file_is_told_in_full(folder, tiny_file, capsys):
    assert main(["inspect", str(folder / "文言文.pth"), "--model", str(tiny_file)]) == 0
    out = capsys.readouterr().out
    report = lab.inspect_file(folder / "文言文.pth", tiny_file)
    assert out == f"{report!r}\n"
    assert "tuned state" in out and "fits        tiny.pth: in shape alone" in out and report.sha256 in out


def test_a_folder_is_a_table_and_what_is_wrong_stands_below(folder, tiny_file, capsys):
    assert main(["inspect", str(folder), "-m", str(tiny_file)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["file", "is"] and lines[0].endswith("fits tiny.pth")
    assert len(lines) == 1 + 3 + 2
    at = lines[0].index("made for")
    assert lines[1][:at].split() == ["page.pth", "HTML", "page"]
    assert any(line.startswith("文言文.pth") and line.endswith("yes, by shape") for line in lines)
    assert any(line.startswith("wide.state: tiny.pth: H=3 (model 2)") for line in lines)
    assert any(line.startswith("page.pth: is an HTML page") for line in lines)


def test_json_holds_everything_of_every_file(folder, capsys):
    assert main(["inspect", str(folder), "--json"]) == 1
    found = {entry["file"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert set(found) == {"文言文.pth", "wide.state", "page.pth"}
    assert found["wide.state"]["orientation"] == "KV" and found["wide.state"]["values"]["high"] == 1.0
    assert found["文言文.pth"]["said"]["purpose"] == "文言文"
    assert found["page.pth"]["problem"] and found["文言文.pth"]["problem"] == ""


def test_quick_reads_headers_only(folder, monkeypatch, capsys):
    monkeypatch.setattr("rwkvlab.tensorfile.TensorFile.read", lambda *_: pytest.fail("a tensor was read"))
    assert main(["inspect", str(folder / "wide.state"), "--quick"]) == 0
    assert "sha256" not in capsys.readouterr().out


def test_a_hostile_name_cannot_act_on_the_terminal(tmp_path, capsys):
    name = "a\x1b[31m\x07\u202eb.pth"
    for path in (tmp_path / name, tmp_path / f"2{name}"):
        torch.save({"blocks.0.att.time_state": torch.ones(1, 2, 2)}, path)
    assert main(["inspect", str(tmp_path / name)]) == 0
    assert main(["inspect", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert out.replace("\n", "").isprintable() and "\\x1b[31m" in out


def test_an_empty_folder_and_a_missing_model_are_said(tmp_path, capsys):
    assert main(["inspect", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "no model and no state is there\n"
    assert main(["inspect", str(tmp_path), "-m", str(tmp_path / "none.pth")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_files_of_the_same_bytes_are_named(tmp_path, capsys):
    for name in ("a.pth", "b.pth"):
        torch.save({"blocks.0.att.time_state": torch.ones(1, 2, 2)}, tmp_path / name)
    (tmp_path / "b.pth").write_bytes((tmp_path / "a.pth").read_bytes())
    assert main(["inspect", str(tmp_path)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "a.pth, b.pth: the same bytes"
