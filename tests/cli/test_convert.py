"""`rwkvlab convert`: says what was written, and overwrites nothing unasked."""

import pytest
import torch

import rwkvlab as lab
from rwkvlab.cli import main


@pytest.fixture
def source(tmp_path, random_state):
    lab.save_state(random_state("emoji"), tmp_path / "emoji.pth", dtype="bf16")
    return tmp_path / "emoji.pth"


def test_there_and_back_is_bit_for_bit(source, tmp_path, capsys):
    assert main(["convert", str(source), str(tmp_path / "e.safetensors")]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"{tmp_path / 'e.safetensors'}: <State 'emoji'") and said.err == ""
    assert main(["convert", str(tmp_path / "e.safetensors"), str(tmp_path / "back.pth")]) == 0
    one, two = torch.load(source, weights_only=True), torch.load(tmp_path / "back.pth", weights_only=True)
    assert all(torch.equal(one[key], two[key]) and one[key].dtype == two[key].dtype for key in one)


def test_rounding_and_a_better_name_are_said(source, tmp_path, capsys):
    assert main(["convert", str(source), str(tmp_path / "e.state")]) == 0
    err = capsys.readouterr().err
    assert "which Ai00's documentation asks for; add arch" in err
    assert torch.equal(lab.load_state(tmp_path / "e.state").wkv, lab.load_state(source).wkv.half().float())


def test_nothing_is_overwritten_unasked(source, tmp_path, capsys):
    (tmp_path / "there.pth").write_text("mine")
    assert main(["convert", str(source), str(tmp_path / "there.pth")]) == 2
    assert "is there already" in capsys.readouterr().err and (tmp_path / "there.pth").read_text() == "mine"
    assert main(["convert", str(source), str(tmp_path / "there.pth"), "--overwrite"]) == 0
    assert torch.equal(lab.load_state(tmp_path / "there.pth").wkv, lab.load_state(source).wkv)


def test_what_only_the_model_tells_is_taken_from_its_header(tmp_path, tiny, tiny_file, capsys):
    state = tiny.read("some text")
    parts = state.wkv, state.att_shift, state.ffn_shift
    flat = [torch.cat([ffn, att, wkv.flatten()]) for wkv, att, ffn in zip(*parts, strict=True)]
    torch.cat(flat).numpy().tofile(tmp_path / "buffer.bin")
    given = ["convert", str(tmp_path / "buffer.bin"), str(tmp_path / "b.safetensors"), "--format", "rwkv.cpp"]
    assert main(given) == 2
    assert "pass the model" in capsys.readouterr().err
    assert main([*given, "--model", str(tiny_file)]) == 0
    back = lab.load_state(tmp_path / "b.safetensors", tiny)
    assert torch.equal(back.wkv, state.wkv) and torch.equal(back.att_shift, state.att_shift)
    assert main(["convert", str(tmp_path / "b.safetensors"), str(tmp_path / "b.pth")]) == 2
    assert "token-shifts" in capsys.readouterr().err


def test_a_model_is_no_state(tiny_file, tmp_path, capsys):
    assert main(["convert", str(tiny_file), str(tmp_path / "x.state")]) == 2
    assert "is a model" in capsys.readouterr().err and not (tmp_path / "x.state").exists()


def test_the_base_of_the_state_is_held_against_the_model_given(tmp_path, tiny, tiny_file, random_state, capsys):
    state = random_state("emoji")
    for base, code in ((tiny.card.fingerprint, 0), ("ab" * 32, 2)):
        path = lab.save_state(state.replace(card=state.card.replace(base=base)), tmp_path / "s.safetensors")
        out = tmp_path / f"{code}.safetensors"
        assert main(["convert", str(path), str(out), "--model", str(tiny_file)]) == code and out.exists() == (code == 0)
    said = capsys.readouterr().err
    assert "its card names another base model ('abababababab…'" in said and "any_base=" not in said


def test_the_name_offered_to_ai00_says_what_the_source_s_card_knew(tmp_path, capsys):
    state = lab.State(torch.zeros(24, 32, 64, 64), card=lab.StateCard(name="RWKV-6-World-emoji", arch="x060"))
    path = lab.save_state(state, tmp_path / "e.safetensors", dtype="fp16")
    assert main(["convert", str(path), str(tmp_path / "emoji.state")]) == 0
    assert "offered: rwkv-x060-World-1.6B-emoji.state" in capsys.readouterr().err
