"""Bundled models and states by name, on the command line; files of the same names come first."""

import json

import pytest
import torch

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


def test_a_bundled_model_takes_a_device_and_a_dtype(capsys):
    said = []
    for more in ([], ["--device", "cpu"], ["--dtype", "fp32"], ["--device", "cpu", "--dtype", "bf16"]):
        assert main(["ask", "-m", "rwkv7", "-s", "emoji", "河内到巴黎怎么走?", *ASK[2:], *more]) == 0
        said.append(capsys.readouterr().out)
    assert all("🇻" in text for text in said) and (torch.cuda.is_available() or len(set(said[:3])) == 1)


def test_the_micro_model_is_asked_without_turns(capsys):
    assert main(["ask", "-m", "micro", "--zero", "bcda>", *ASK[2:]]) == 0
    assert "template raw," in capsys.readouterr().err


def test_words_of_a_states_name_are_enough(capsys):
    assert main(["ask", "-m", "rwkv7", "-s", "emoji", "东京到巴黎怎么走?", *ASK[2:]]) == 0
    assert "--- " not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["-s", "nothing"], "'nothing': no such file, and no such state; micro has cipher, copy, next"),
        (["-s", " "], "' ': no such file, and no such state; micro has cipher, copy, next"),
        (["-s", "c"], "'c': fits 2 states of micro; choose from cipher, copy"),
        (["--device", "abacus"], "'abacus'"),
        (["--dtype", "int8"], "int8"),
        (["--tokenizer", "bytes"], "--tokenizer: micro comes with its own; leave it out"),
        (["-m", "rwkv8"], "or 'owner/repo/file' on Hugging Face, or one of micro, rwkv7, rwkv6"),
        (["-m", "rwkv7", "-s", "nothing"], "rwkv7 has austen_novels, brief_single_round, "),
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


def test_inspect_and_convert_look_into_bundled_ones(tmp_path, capsys):
    shelf = lab.bundled("micro")[1]
    assert main(["inspect", "micro", str(shelf.path("reverse")), "-m", "micro", "--quick"]) == 0
    out = capsys.readouterr().out
    assert "base model" in out and "yes, by base" in out
    assert main(["convert", str(shelf.path("reverse")), str(tmp_path / "a.pth"), "-m", "micro"]) == 0
    assert main(["convert", str(shelf.path("reverse")), str(tmp_path / "b.pth"), "-m", "rwkv7"]) == 2


def test_verify_and_diff_take_bundled_ones(capsys):
    shelf = lab.bundled("micro")[1]
    assert main(["verify", "micro", "reverse", "--no-official", "--seeds", "3"]) in (0, 1, 3)
    out = capsys.readouterr().out
    assert "reverse" in out and "micro.pth" in out
    files = [str(shelf.path(name)) for name in ("reverse", "copy")]
    assert main(["diff", *files, "--model", "micro"]) == 0
    assert "reverse" in capsys.readouterr().out
