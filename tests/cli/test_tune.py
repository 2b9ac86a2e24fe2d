"""`rwkvlab tune`: a state from a file of examples; nothing is overwritten unasked, and no work is lost."""

import json
import os
import signal

import pytest
import torch

import rwkvlab as lab
import rwkvlab.cli.tune as command
from rwkvlab.cli import main
from rwkvlab.errors import DivergedError

PAIRS = [{"prompt": f"{i}>", "answer": "yes"} for i in range(20)]
OPTIONS = ("--tokenizer", "bytes", "--steps", "20", "--lr", "0.1")


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "data.jsonl"
    path.write_text("".join(json.dumps(pair) + "\n" for pair in PAIRS))
    return path


def run(tiny_file, data, out, *options):
    return main(["tune", str(tiny_file), str(data), "-o", str(out), *OPTIONS, *options])


@pytest.mark.parametrize("suffix", [".pth", ".state", ".safetensors"])
def test_the_state_is_that_of_tune_in_every_layout(tiny, tiny_file, data, tmp_path, capsys, suffix):
    out = tmp_path / f"s{suffix}"
    assert run(tiny_file, data, out) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"{out}: tuned: 20 steps, lr 0.1, batch 16, 18 examples, seed 0, 2 held out: loss")
    lines = said.err.splitlines()
    assert lines[0].startswith("step 1 of 20: loss 5.") and "tokens/s" in lines[0]
    assert "held out" in lines[-1] and lines[-1].startswith("step 20 of 20")
    want = lab.tune(tiny, PAIRS, steps=20, lr=0.1, held_out=0.1, template="world").wkv
    close = {"rtol": 1e-3, "atol": 1e-4} if suffix == ".state" else {"rtol": 0, "atol": 0}
    torch.testing.assert_close(lab.load_state(out, tiny).wkv, want, **close)


def test_what_is_wrong_with_the_place_is_said_before_the_work(tiny_file, data, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(command.lab, "tune", None)
    (tmp_path / "there.pth").write_text("mine")
    for name, message, options in (
        ("there.pth", "is there already; choose another name, or give --overwrite", ()),
        ("no/such/s.pth", "no such folder", ()),
        ("s.txt", "need a name ending in .pth", ()),
        ("s.pth", "only .safetensors holds", ("--shifts",)),
    ):
        assert run(tiny_file, data, tmp_path / name, *options) == 2
        assert message in capsys.readouterr().err
    assert (tmp_path / "there.pth").read_text() == "mine"


def test_a_bad_line_is_named(tiny_file, data, tmp_path, capsys):
    data.write_text('{"text": "a"}\n{"text": }\n')
    assert run(tiny_file, data, tmp_path / "s.pth") == 2
    assert "'data.jsonl': line 2: not JSON" in capsys.readouterr().err
    assert not (tmp_path / "s.pth").exists()


def test_a_run_goes_on_from_a_state(tiny_file, data, tmp_path, capsys, random_state):
    lab.save_state(random_state("start"), tmp_path / "start.pth")
    assert (
        run(tiny_file, data, tmp_path / "s.safetensors", "--init", str(tmp_path / "start.pth"), "--held-out", "0") == 0
    )
    assert capsys.readouterr().out.rstrip().endswith("20 examples, seed 0, from start")


def test_patience_is_an_end_of_its_own(tiny_file, data, tmp_path, capsys):
    data.write_text("".join(json.dumps({"prompt": "a", "answer": chr(97 + i)}) + "\n" for i in range(20)))
    options = ("--steps", "4000", "--lr", "5", "--patience", "1")
    assert run(tiny_file, data, tmp_path / "s.safetensors", *options) == 0
    assert " of 4000 steps" in capsys.readouterr().out


def test_ctrl_c_saves_the_best_state(tiny_file, data, tmp_path, capsys, monkeypatch):
    real = command._line

    def interrupted(step):
        if step.step == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return real(step)

    monkeypatch.setattr(command, "_line", interrupted)
    assert run(tiny_file, data, tmp_path / "s.safetensors", "--patience", "9") == 130
    assert "tuned: 4 of 20 steps" in capsys.readouterr().out
    assert lab.load_state(tmp_path / "s.safetensors").wkv.any()


def test_the_state_before_a_loss_that_is_not_finite_is_saved(tiny, tiny_file, data, tmp_path, capsys, monkeypatch):
    def breaks(model, examples, *, on_step, **options):
        kept = lab.tune(model, examples, steps=3, on_step=on_step)
        error = DivergedError("tune: the loss (nan) is not finite at step 4")
        error.state = kept
        raise error

    real = command.lab.tune
    monkeypatch.setattr(command.lab, "tune", lambda *a, **o: breaks(*a, **o) if "init" in o else real(*a, **o))
    assert run(tiny_file, data, tmp_path / "s.safetensors") == 2
    assert "not finite" in capsys.readouterr().err
    assert lab.load_state(tmp_path / "s.safetensors").wkv.any()
