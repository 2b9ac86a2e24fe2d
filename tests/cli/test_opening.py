"""Bundled models and states by name, on the command line; files of the same names come first."""

import json

import pytest

import rwkvlab as lab
from rwkvlab.cli import main

ASK = ["--template", "raw", "--max-tokens", "6", "--temperature", "0", "--presence", "0", "--frequency", "0"]


def test_a_bundled_model_is_asked_from_a_bundled_state(capsys):
    assert main(["ask", "-m", "micro", "-s", "reverse", "-s", "copy", "bcda>", *ASK]) == 0
    model, shelf = lab.bundled("micro")
    greedy = {"template": "raw", "max_tokens": 6, "temperature": 0.0, "presence": 0.0, "frequency": 0.0}
    said = [model.chat("bcda>", shelf[name], **greedy).text for name in ("reverse", "copy")]
    out = capsys.readouterr().out
    assert out == "".join(f"--- {name}\n{text}\n" for name, text in zip(("reverse", "copy"), said, strict=True))
    assert said[0].startswith("adcb") and said[1].startswith("bcda")


def test_words_of_a_states_name_are_enough(capsys):
    assert main(["ask", "-m", "rwkv7", "-s", "emoji", "东京到巴黎怎么走?", *ASK[2:]]) == 0
    assert "--- " not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["-s", "nothing"], "'nothing': no such file, and no such state; micro has cipher, copy, next"),
        (["-s", "c"], "'c': 2 states of micro bear that name; micro has cipher, copy"),
        (["--device", "cpu"], "--device: micro comes with the package"),
        (["--dtype", "bf16"], "--dtype: micro comes with the package"),
        (["--tokenizer", "bytes"], "--tokenizer: micro comes with the package, its vocabulary too; leave it out"),
    ],
)
def test_what_cannot_be_meant_is_refused(capsys, more, words):
    assert main(["ask", "-m", "micro", "hi", *more]) == 2
    assert words in capsys.readouterr().err


def test_a_file_of_the_same_name_comes_first(tiny_file, random_state, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "micro").write_bytes(b"no model")
    assert main(["ask", "-m", "micro", "hi"]) == 2
    assert "comes with" not in capsys.readouterr().err
    (tmp_path / "micro").unlink()
    (tmp_path / "reverse").write_bytes(b"no state")
    assert main(["ask", "-m", "micro", "-s", "reverse", "hi", *ASK]) == 2
    assert "reverse" in capsys.readouterr().err


def test_a_bundled_model_is_tuned(tmp_path, capsys):
    data, out = tmp_path / "data.jsonl", tmp_path / "a.safetensors"
    data.write_text("".join(json.dumps({"prompt": f"{c}b>", "answer": f"b{c}\n"}) + "\n" for c in "acdefgh"))
    assert main(["tune", "micro", str(data), "-o", str(out), "--steps", "2", "--init", "reverse"]) == 0
    model, shelf = lab.bundled("micro")
    found = lab.load_state(out, model)
    assert 0 < float((found.wkv - shelf["reverse"].wkv).norm()) < float(found.wkv.norm())


def test_verify_and_diff_take_bundled_ones(capsys):
    shelf = lab.bundled("micro")[1]
    assert main(["verify", "micro", "reverse", "--no-official", "--seeds", "3"]) in (0, 1, 3)
    assert "reverse" in capsys.readouterr().out
    files = [str(shelf.path(name)) for name in ("reverse", "copy")]
    assert main(["diff", *files, "--model", "micro"]) == 0
    assert "reverse" in capsys.readouterr().out
