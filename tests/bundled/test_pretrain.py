"""The command that trains a bundled model, on a small model and stand-in documents."""

import json

import pytest
import torch
from torch.nn.functional import cross_entropy

from rwkvlab.bundled import micro_data, pretrain, pretrain_run
from rwkvlab.bundled.feeding import KINDS
from rwkvlab.bundled.micro_data import Batch
from rwkvlab.bundled.training import Recipe
from rwkvlab.errors import ArgError
from rwkvlab.model.engine import load_model
from rwkvlab.shapes import Dims
from rwkvlab.tasks.builtin import micro_tasks
from rwkvlab.tasks.task import Task

TINY = {arch: Dims(arch=arch, L=2, H=2, C=32, K=16, V=16, ffn=64, vocab=micro_data.VOCAB) for arch in pretrain.NAMES}


class StandIn:
    """Draws rows that count upwards, from other numbers where they are held out."""

    def __init__(self, folder, vocab):
        assert vocab == folder / "vocab.txt" and vocab.is_file()

    def draw(self, seed, step, kind, rows, length, *, held_out=False):
        generator = torch.Generator().manual_seed(seed * 1000 + step * 2 + held_out)
        tokens = (torch.randint(60, (rows, 1), generator=generator) * 2 + held_out + torch.arange(length + 1)) % 120
        return Batch(tokens[:, :-1], tokens[:, 1:], torch.ones(rows, length))


@pytest.fixture
def folders(tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "vocab.txt").write_text(micro_data.vocabulary(), "utf-8")
    monkeypatch.setattr(pretrain, "Mix", StandIn)
    monkeypatch.setattr(pretrain, "DIMS", TINY)
    monkeypatch.setattr(pretrain, "LOOKED", 4)
    monkeypatch.setattr(pretrain, "world_tasks", lambda n, tagged: [Task("plain", ("Where?",) * n, ("There.",) * n)])
    monkeypatch.setattr(pretrain_run, "LOGGED", 4)
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)  # the other tests' threads stay as they are
    return tmp_path / "data", tmp_path / "out"


def command(folders, arch, *more):
    data, out = folders
    common = ["--data", str(data), "--out", str(out), "--tokens", "400", "--device", "cpu"]
    pretrain.main(["--arch", arch, *common, *more])


@pytest.mark.parametrize("arch", list(pretrain.NAMES))
def test_a_run_leaves_a_model_its_vocabulary_and_a_log(arch, folders, capsys):
    command(folders, arch, "--steps", "6", "--workers", "2")
    data, out = folders
    name = {"x070": "rwkv7", "x060": "rwkv6"}[arch]
    assert sorted(path.name for path in out.iterdir()) == ["log.json", f"{name}.pth", "vocab.txt"]
    assert (out / "vocab.txt").read_bytes() == (data / "vocab.txt").read_bytes()
    model = load_model(out / f"{name}.pth", device="cpu", dtype="fp32", tokenizer=out / "vocab.txt")
    assert model.dims == TINY[arch]
    assert {x.dtype for x in load_model(out / f"{name}.pth", device="cpu")._checkpoint.weights.values()} >= {
        torch.bfloat16
    }
    log = json.loads((out / "log.json").read_text("utf-8"))
    batch = StandIn(data, data / "vocab.txt").draw(0, 0, "text", 2, 512, held_out=True)
    loss = float(cross_entropy(model.forward(batch.tokens).logits.flatten(0, 1), batch.targets.flatten()))
    assert loss == pytest.approx(log["held-out losses of full weight"][-1]["text"], rel=0.03)
    assert log["recipe"]["steps"] == log["steps"] == 6 and log["dims"]["arch"] == arch
    shares = log["right, of 4 held-out questions"]
    assert set(shares) == {"tag", "no tag"}
    assert set(shares["tag"]) == {*(task.name for task in micro_tasks(1)), "plain"}
    assert "no tag: " in capsys.readouterr().out


def test_the_number_of_workers_changes_nothing(folders):
    weights = []
    for workers in ("0", "3"):
        command(folders, "x070", "--steps", "5", "--workers", workers)
        weights.append(load_model(folders[1] / "rwkv7.pth", device="cpu")._checkpoint.weights)
    assert all(torch.equal(x, weights[1][key]) for key, x in weights[0].items())


def test_steps_and_seconds_together_are_refused(folders):
    with pytest.raises(ArgError, match="--steps and --seconds"):
        command(folders, "x070", "--steps", "5", "--seconds", "60")


def test_a_step_has_a_batch_of_each_kind_and_held_out_ones_are_others(tmp_path):
    (tmp_path / "vocab.txt").write_text("")
    mix, recipe = StandIn(tmp_path, tmp_path / "vocab.txt"), Recipe(tokens=2000)
    batches, held = pretrain.draw_step(mix, recipe, 3), pretrain.draw_held_out(mix, recipe)
    for kind, batch in zip(KINDS, batches, strict=True):
        assert batch.tokens.shape == (recipe.rows_of(kind.name), kind.length)
        assert len(held[kind.name]) == pretrain.HELD_OUT
        assert not (batch.tokens[:, 0] % 2).any() and (held[kind.name][0].tokens[:, 0] % 2).all()
    assert not torch.equal(batches[0].tokens, pretrain.draw_step(mix, recipe, 4)[0].tokens)
