"""The command line, mostly in this process; what needs a process of its own is run once."""

import re
import signal
import subprocess
import sys
import time

import pandas as pd
import pytest
import torch

import rwkvlab as lab
from rwkvlab.cli import ask as ask_module
from rwkvlab.cli import main
from rwkvlab.errors import Cancelled, printable

SHORT = ["--max-tokens", "8", "--top-p", "1"]


@pytest.fixture
def states(tmp_path, random_state):
    """Two state files that fit, and one that does not."""
    lab.save_state(random_state("emoji"), tmp_path / "emoji.pth")
    lab.save_state(random_state("文言文", 1), tmp_path / "文言文.state")
    lab.save_state(lab.State(torch.ones(2, 3, 16, 16)), tmp_path / "other.pth")
    return tmp_path


@pytest.fixture
def ask(tiny_file):
    """ask("hi", …) -> exit code, with the tiny model."""
    return lambda *more: main(["ask", "-m", str(tiny_file), "--tokenizer", "bytes", *SHORT, *map(str, more)])


def test_without_a_command_the_commands_are_listed(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    assert all(f"\n    {name} " in out for name in ("demo", "ask", "lab", "env"))


def test_the_version_is_that_of_the_package(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["--version"])
    assert capsys.readouterr().out == f"rwkvlab {lab.__version__}\n"


def test_ask_says_what_chat_says(ask, tiny, states, capsys):
    assert ask("hi", "--seed", 4) == 0
    said = capsys.readouterr()
    expected = tiny.chat("hi", None, seed=4, max_tokens=8, top_p=1.0).text
    assert said.out == printable(expected) + "\n"
    assert said.err.startswith("template world, max_tokens 8, temperature 1.0, top_p 1.0") and "seed 4" in said.err


def test_several_states_answer_in_turn_with_the_same_seed(ask, tiny, states, capsys):
    files = [states / "emoji.pth", states / "文言文.state"]
    assert ask("hi", "--zero", "-s", files[0], "-s", files[1], "--template", "raw") == 0
    out = capsys.readouterr().out
    expected = ""
    for name, path in (("zero", None), ("emoji", files[0]), ("文言文", files[1])):
        state = None if path is None else lab.load_state(path, tiny)
        text = tiny.chat("hi", state, seed=0, template="raw", max_tokens=8, top_p=1.0).text
        expected += f"--- {name}\n{printable(text)}\n"
    assert out == expected


def test_the_answers_are_also_a_page_if_asked_for(ask, tiny, states, tmp_path, capsys):
    page = tmp_path / "a.html"
    assert ask("hi", "--zero", "-s", states / "emoji.pth", "--template", "raw", "--html", page) == 0
    out, err = capsys.readouterr()
    text = page.read_text("utf-8")
    assert text.count("<th>emoji</th>") == 1 and "KL(start ‖ zero)" in text and "seed 0, max_tokens 8" in text
    assert out.startswith("--- zero\n") and err.endswith(f"{page}: written\n")
    told = tiny.chat("hi", None, seed=0, template="raw", max_tokens=8, top_p=1.0)
    assert f"{len(told.tokens)} tokens, {told.finish}" in text


@pytest.mark.parametrize(
    ("name", "message"), [("a.pth", "--html: need a name"), ("no/a.html", "--html: no such folder")]
)
def test_a_page_that_cannot_be_is_refused_before_anything_is_read(ask, tmp_path, capsys, monkeypatch, name, message):
    monkeypatch.setattr(lab, "load_model", None)
    assert ask("hi", "--html", tmp_path / name) == 2
    out, err = capsys.readouterr()
    assert not out and message in err


def test_the_template_is_that_of_the_state_unless_it_is_given(ask, tiny, tmp_path, capsys):
    path = tmp_path / "g1.safetensors"
    lab.save_state(lab.State(torch.ones(2, 2, 16, 16), like=tiny).replace(card=lab.StateCard(template="g1")), path)
    assert ask("hi", "-s", path) == 0
    assert "template g1," in capsys.readouterr().err
    assert ask("hi", "-s", path, "--template", "world") == 0
    err = capsys.readouterr().err
    assert "template world," in err and err.startswith("rwkvlab: note: ")


def test_a_state_of_another_base_is_taken_only_where_that_is_asked_for(ask, random_state, tmp_path, capsys):
    state = random_state("stray")
    lab.save_state(state.replace(card=state.card.replace(base="5" * 64)), tmp_path / "stray.safetensors")
    assert ask("hi", "-s", tmp_path / "stray.safetensors") == 2
    assert "another base model" in capsys.readouterr().err
    assert ask("hi", "-s", tmp_path / "stray.safetensors", "--any-base") == 0


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["hi", "-m", "nowhere.pth"], "nowhere.pth"),
        (["hi", "-m", "{states}/emoji.pth"], "emoji.pth"),
        (["hi", "-m", "{states}/text.pth"], "text.pth"),
        (["hi", "-s", "nowhere.state"], "nowhere.state"),
        (["hi", "-s", "{states}/other.pth"], "H=3"),
        (["hi", "-s", "{states}/text.pth"], "text.pth"),
        (["hi", "--template", "nope"], "template: need"),
        (["hi", "--tokenizer", "nowhere.txt"], "nowhere.txt"),
        (["hi", "--device", "abacus"], "'abacus'"),
        (["hi", "--dtype", "int8"], "int8"),
        (["hi", "--temperature", "-1"], "temperature"),
        (["hi", "--max-tokens", "-1"], "max_tokens"),
        (["hi", "--seed", "-1"], "seed"),
        ([" \n"], "question"),
        (["hi", "-m", "evil\x1b[31m\n.pth"], "evil"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(ask, states, capsys, more, words):
    (states / "text.pth").write_text("not a checkpoint")
    assert ask(*(word.replace("{states}", str(states)) for word in more)) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("rwkvlab: error: ") and words in err
    assert err.count("\n") == 1 and "\x1b" not in err and "Traceback" not in err


def test_an_unknown_option_is_refused(ask, capsys):
    with pytest.raises(SystemExit, match="2"):
        ask("hi", "--colour")
    assert "--colour" in capsys.readouterr().err


def test_what_nobody_foresaw_is_one_line_too_and_the_traceback_is_an_option(ask, monkeypatch, capsys):
    def broken(*args, **options):
        raise ZeroDivisionError("by\nzero")

    monkeypatch.setattr(lab, "load_model", broken)
    assert ask("hi") == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "ZeroDivisionError" in err and "--traceback" in err
    assert ask("hi", "--traceback") == 1
    assert "in broken" in capsys.readouterr().err


def test_ctrl_c_is_quiet(ask, monkeypatch, capsys):
    real = ask_module._write

    def interrupted(text):
        real(text)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ask_module, "_write", interrupted)
    assert ask("hi", "--max-tokens", "100") == 130
    out, err = capsys.readouterr()
    assert 1 < len(out) < 100 and err == ""


@pytest.mark.parametrize("error", [KeyboardInterrupt, Cancelled("experiment: interrupted")])
def test_ctrl_c_before_an_answer_is_quiet_too(ask, monkeypatch, capsys, error):
    def load(*args, **options):
        raise error

    monkeypatch.setattr(lab, "load_model", load)
    assert ask("hi") == 130
    assert capsys.readouterr() == ("", "")


def test_a_reader_that_goes_away_ends_it_quietly(tiny_file):
    command = [
        sys.executable,
        "-m",
        "rwkvlab.cli",
        "ask",
        "-m",
        tiny_file,
        "--tokenizer",
        "bytes",
        "--top-p",
        "1",
        "hi",
    ]
    with subprocess.Popen([*command, "--max-tokens", "3000"], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as run:
        run.stdout.read(1)
        run.stdout.close()
        assert run.stderr.read() == b""
    assert run.returncode == 1


def test_answers_cannot_act_on_a_terminal():
    assert printable("a\x1b[31m\u202eb\x07\ud800") == "a\\x1b[31m\\u202eb\\x07\\ud800"
    assert printable("你好\n\t👩\u200d🔬\u3000é") == "你好\n\t👩\u200d🔬\u3000é"


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    """What `rwkvlab demo` prints and leaves behind, run as a user runs it."""
    folder = tmp_path_factory.mktemp("demo")
    run = subprocess.run(
        [sys.executable, "-m", "rwkvlab.cli", "demo"], cwd=folder, capture_output=True, text=True, timeout=120
    )
    # on a busy machine a progress bar may have been there
    said = [line for line in run.stderr.replace("\r", "\n").splitlines() if line.strip() and "part" not in line]
    assert run.returncode == 0 and said == []
    return run.stdout, folder / "rwkvlab-demo"


def test_the_demo_shows_that_only_the_right_state_helps(demo):
    out, _ = demo
    table = {
        line.rsplit(maxsplit=6)[0]: line.split()[-6:] for line in out.splitlines() if re.search(r"(0|1)\.\d\d$", line)
    }
    names = ["copy", "reverse", "sort", "next", "cipher", "rotate"]
    accuracy = pd.DataFrame(table, index=names).T.astype(float)
    zero = accuracy.loc["zero"]
    for name in names:
        assert accuracy.loc[name, name] >= 0.9 and accuracy.loc[name, name] > zero[name] + 0.3
    controls = accuracy.iloc[-3:]
    assert list(controls.index) == ["another task's, the best", "random, same spectrum", "transposed"]
    assert (controls - zero).max(axis=None) <= 0.05 + 1e-9
    assert "+0.05 holds" in out


def test_the_demo_shows_answers_side_by_side_and_says_where_things_are(demo):
    out, folder = demo
    assert re.search(r"^ +zero +copy +reverse +sort +next +cipher +rotate$", out, re.MULTILINE)
    assert "temperature 0.0" in out and "make lab" in out
    assert int(re.search(r"\((\d+) s\)", out)[1]) < 30
    png = folder / "demo.png"
    assert str(png.relative_to(folder.parent)) in out and png.read_bytes().startswith(b"\x89PNG")
    rows = pd.read_csv(folder / "answers.csv")
    assert set(rows.columns) >= {"task", "state", "prompt", "answer", "said", "right", "logprob"}


def test_a_demo_that_cannot_write_says_so(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert main(["demo", "--out", str(tmp_path / "file")]) == 2
    assert "--out" in capsys.readouterr().err


def test_what_was_assumed_about_a_state_is_said(ask, random_state, tmp_path, capsys):
    path = lab.save_state(random_state("mine"), tmp_path / "rwkv-x070-mine-0.1B.pth", dtype="bf16")
    assert ask("hi", "-s", path) == 0
    assert "note: " in (err := capsys.readouterr().err)
    assert "architecture x070 taken from the file name" in err


def test_a_state_that_does_not_fit_is_named_by_its_file(ask, tmp_path, capsys):
    path = lab.save_state(lab.State(torch.ones(9, 2, 4, 4)), tmp_path / "other.safetensors")
    assert ask("hi", "-s", path) == 2
    assert "--state" in (err := capsys.readouterr().err)
    assert "other.safetensors" in err


@pytest.mark.long
def test_the_demo_takes_less_than_half_a_minute(tmp_path):
    begun = time.monotonic()
    subprocess.run([sys.executable, "-m", "rwkvlab.cli", "demo", "--out", tmp_path], check=True, stdout=subprocess.PIPE)
    assert time.monotonic() - begun < 30
    assert (tmp_path / "demo.png").stat().st_size > 10_000
