"""`rwkvlab tune`: a state from a file of examples; nothing is overwritten unasked, and no work is lost."""

import json
import os
import signal
import subprocess
import sys
from inspect import signature

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


NOTE = "rwkvlab: note: the examples were read as they stand: ask from this state with --template raw"


@pytest.mark.parametrize("suffix", [".pth", ".state", ".safetensors"])
def test_the_state_is_that_of_tune_in_every_layout(tiny, tiny_file, data, tmp_path, capsys, suffix):
    out = tmp_path / f"s{suffix}"
    assert run(tiny_file, data, out) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"{out}: tuned: 20 steps, lr 0.1, batch 16, 18 examples, seed 0, 2 held out: loss")
    lines = said.err.splitlines()
    if suffix == ".safetensors":
        assert lab.load_state(out).card.template == "raw"  # pairs are read as they stand
    else:
        assert lines.pop() == NOTE
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
        ("s.pth", "is to be the checkpoint too", ("--checkpoint", str(tmp_path / "s.pth"))),
        ("s.pth", "only .safetensors holds", ("--shifts",)),
    ):
        assert run(tiny_file, data, tmp_path / name, *options) == 2
        assert message in capsys.readouterr().err
    assert (tmp_path / "there.pth").read_text() == "mine"


def test_a_bad_line_is_named(tiny_file, data, tmp_path, capsys):
    for line, words in (
        ('{"text": }', "not JSON"),
        ('{"text": 5}', 'need a text under "text"'),
        ('{"prompt": "a", "answer": ""}', "prompt and answer need"),
        ('{"teacher": "a"}', "need a (prompt, answer) pair"),
    ):
        data.write_text('{"text": "a"}\n\n' + line + "\n")
        assert run(tiny_file, data, tmp_path / "s.pth") == 2
        assert f"'data.jsonl': line 3: {words}" in capsys.readouterr().err
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


def test_a_killed_run_goes_on_with_the_same_command(tiny_file, data, tmp_path, capsys, monkeypatch):
    real, kept = command._line, tmp_path / "run.ckpt"

    def killed(step):
        if step.step == 4:
            raise MemoryError("as if it were killed")
        return real(step)

    with monkeypatch.context() as patch:
        patch.setattr(command, "_line", killed)
        assert run(tiny_file, data, tmp_path / "s.pth", "--checkpoint", str(kept), "--every", "1") == 1
    capsys.readouterr()
    assert run(tiny_file, data, tmp_path / "s.pth", "--checkpoint", str(kept), "--every", "1") == 0
    assert capsys.readouterr().err.startswith("step 5 of 20")
    assert run(tiny_file, data, tmp_path / "whole.pth") == 0
    states = [lab.load_state(tmp_path / f"{name}.pth").wkv for name in ("s", "whole")]
    assert torch.equal(*states)
    capsys.readouterr()
    # finished: the state is written again at once
    assert run(tiny_file, data, tmp_path / "again.pth", "--checkpoint", str(kept), "--every", "1") == 0
    assert capsys.readouterr().err == NOTE + "\n"
    assert run(tiny_file, data, tmp_path / "other.pth", "--checkpoint", str(kept), "--lr", "0.2") == 2
    said = capsys.readouterr().err
    assert "lr: '0.1' there, '0.2' here" in said and "give another path as --checkpoint, or delete it" in said


def test_a_teacher_is_a_text_or_a_file(tiny, tiny_file, data, tmp_path, capsys):
    data.write_text("".join(json.dumps({"prompt": f"{i}>"}) + "\n" for i in range(20)))
    (tmp_path / "teacher.txt").write_text("say yes. ")
    for name, teacher in (("text", "say yes. "), ("file", f"@{tmp_path / 'teacher.txt'}")):
        options = ("--teacher", teacher, "--teacher-weight", "0.5", "--check", "5", "--no-checkpointing")
        assert run(tiny_file, data, tmp_path / f"{name}.pth", *options) == 0
        said = capsys.readouterr()
        assert "teacher of 9 tokens, weight 0.5" in said.out and said.err.endswith(NOTE + "\n")
    assert torch.equal(*(lab.load_state(tmp_path / f"{name}.pth").wkv for name in ("text", "file")))
    assert run(tiny_file, data, tmp_path / "s.pth", "--teacher", f"@{tmp_path / 'none'}") == 2
    assert "no such file" in capsys.readouterr().err


def test_torchrun_comes_to_the_same_state(tiny_file, data, tmp_path):
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    out, kept = tmp_path / "two.pth", tmp_path / "run.ckpt"
    given = ["tune", str(tiny_file), str(data), "-o", str(out), "--checkpoint", str(kept), "--device", "cpu", *OPTIONS]
    shared = subprocess.run(
        [*launch, "-m", "rwkvlab.cli", *given], capture_output=True, text=True, check=False, timeout=200,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert shared.returncode == 0, shared.stderr
    assert shared.stdout.count("tuned: 20 steps") == 1
    assert shared.stderr.count("step 20 of 20") == 1
    assert main(["tune", str(tiny_file), str(data), "-o", str(tmp_path / "one.pth"), *OPTIONS]) == 0
    one, two = (lab.load_state(tmp_path / f"{name}.pth").wkv for name in ("one", "two"))
    assert float((one - two).norm()) < 1e-5 * float(one.norm())


def test_every_setting_of_tune_is_an_option(capsys):
    names = set(signature(lab.tune).parameters) - {"model", "examples", "on_step", "cancel"}
    with pytest.raises(SystemExit):
        main(["tune", "--help"])
    said = capsys.readouterr().out
    assert [name for name in names if f"--{name.replace('_', '-')}" not in said] == []


def test_questions_with_answers_are_talks_in_a_template(tiny, tiny_file, tmp_path, capsys):
    data, out = tmp_path / "talks.jsonl", tmp_path / "s.safetensors"
    data.write_text("".join(json.dumps({"question": f"{i}?", "answer": f"{i}!"}) + "\n" for i in range(20)))
    assert run(tiny_file, data, out) == 0
    assert NOTE not in capsys.readouterr().err
    roles = ("user", "?"), ("assistant", "!")
    talks = [{"messages": [{"role": role, "content": f"{i}{end}"} for role, end in roles]} for i in range(20)]
    want = lab.tune(tiny, talks, steps=20, lr=0.1, held_out=0.1, template="world")
    found = lab.load_state(out, tiny)
    assert torch.equal(found.wkv, want.wkv) and found.card.template == "world"


def test_ctrl_c_before_the_first_step_saves_nothing(tiny_file, data, tmp_path, capsys, monkeypatch):
    real = command.lab.tune

    def at_once(*args, cancel, **options):
        cancel.set()
        return real(*args, cancel=cancel, **options)

    monkeypatch.setattr(command.lab, "tune", at_once)
    assert run(tiny_file, data, tmp_path / "s.pth") == 130
    assert "interrupted before the first step: nothing is saved" in capsys.readouterr().err
    assert not (tmp_path / "s.pth").exists()


def test_after_ctrl_c_it_is_said_how_to_go_on(tiny_file, data, tmp_path, capsys, monkeypatch):
    real, kept, out = command._line, tmp_path / "run.ckpt", tmp_path / "s.pth"
    options = ("--checkpoint", str(kept), "--every", "1", "--check", "1")

    def stops(step):
        if step.step == 4:
            signal.raise_signal(signal.SIGINT)
        return real(step)

    with monkeypatch.context() as patch:
        patch.setattr(command, "_line", stops)
        assert run(tiny_file, data, out, *options) == 130
    assert "the same command with --overwrite goes on from here" in capsys.readouterr().err
    assert run(tiny_file, data, out, *options, "--overwrite") == 0
    assert capsys.readouterr().err.startswith("step 5 of 20")
    assert run(tiny_file, data, tmp_path / "whole.pth", "--check", "1") == 0
    assert torch.equal(lab.load_state(out).wkv, lab.load_state(tmp_path / "whole.pth").wkv)
