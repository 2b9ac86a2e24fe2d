"""What Python calls by arguments the command line calls by options."""

import pytest

import rwkvlab as lab
from rwkvlab.cli import main
from rwkvlab.cli.wording import in_options


@pytest.mark.parametrize(
    ("said", "here"),
    [
        ("choose another name, or pass overwrite=True", "choose another name, or give --overwrite"),
        ("or pass overwrite=True (--overwrite)", "or give --overwrite"),
        ("or pass drop_shifts=True to lose them", "or give --drop-shifts to lose them"),
        ("pass model=, or orientation='VK' for RWKV-7", "give --model, or --orientation VK for RWKV-7"),
        ("orientation=KV was given, where", "--orientation KV was given, where"),
        ("this is a tuned state; open it with load_state", "this is a tuned state; give a model here"),
        ("~ is not expanded here; use Path(…).expanduser()", "~ is not expanded here; write $HOME in its place"),
        ("give texts= like those", "give --texts like those"),
        ('pass format="rwkv.cpp" for', "pass --format rwkv.cpp for"),
        ("not compared: official=False", "not compared: --no-official"),
        ("'/data/model=7b/dtype=bf16/x.pth': no such file", "'/data/model=7b/dtype=bf16/x.pth': no such file"),
        (
            "'a (--overwrite) b.pth': is there, pass overwrite=True",
            "'a (--overwrite) b.pth': is there, give --overwrite",
        ),
        ("load it with orientation='KV', 'x model=y'", "give --orientation KV, 'x model=y'"),
        ("263; pass tokenizer=<path of its vocabulary>", "263; pass --tokenizer <path of its vocabulary>"),
        ("data/model=7b stays", "data/model=7b stays"),
        ("anymodel=x and a_texts= stay", "anymodel=x and a_texts= stay"),
    ],
)
def test_arguments_become_options(said, here):
    assert in_options(said) == here


def test_errors_and_notes_of_the_program_name_options(tiny, tmp_path, capsys):
    lab.save_state(tiny.read("some text"), tmp_path / "s.safetensors")
    assert main(["convert", str(tmp_path / "s.safetensors"), str(tmp_path / "s.pth")]) == 2
    assert "or give --drop-shifts to lose them" in capsys.readouterr().err
