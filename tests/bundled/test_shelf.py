"""The bundled micro model: what it is, what it can do, and that the controls do nothing."""

import json
import subprocess
import sys
import tomllib
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from rwkvlab.bundled.micro_measure import measure
from rwkvlab.bundled.shelf import bundled
from rwkvlab.errors import ArgError
from rwkvlab.measure.experiments.experiment import Experiment
from rwkvlab.states.card import same_base
from rwkvlab.tasks.builtin import MICRO_FUNCTIONS, micro_tasks


@pytest.fixture(scope="module")
def micro():
    return bundled()


def test_the_default_is_micro_with_one_state_a_task(micro):
    model, shelf = micro
    assert str(model.dims) == "RWKV-7 L2 C64 H4 K16 V16"
    assert model.card.name == "micro"
    assert set(shelf) == set(MICRO_FUNCTIONS)
    assert not shelf.unreadable
    assert bundled("micro")[0].card == model.card
    for name, state in shelf.items():
        assert state.card.name == name
        assert same_base(state.card.base, model.card.fingerprint)
        assert state.card.recipe.startswith("tuned: 400 steps")
        assert state.card.template == "raw"
        assert not state.has_shifts


def test_the_tokenizer_takes_any_text_and_a_tag_is_one_token(micro):
    tokenizer = micro[0].tokenizer
    assert len(tokenizer.encode("sort:fbe>")) == 5
    assert tokenizer.decode(tokenizer.encode("rotate:fbe>\n文言文")) == "rotate:fbe>\n文言文"


def test_a_state_answers_and_stops_by_itself(micro):
    model, shelf = micro
    said = model.generate("fbeac>", shelf["reverse"], temperature=0)
    assert (said.text, said.finish) == ("caebf", "end")
    assert model.generate("sort:fbeac>", temperature=0).text == "abcef"


def test_a_pair_in_the_text_mostly_shows_which_task_it_is(micro):
    first, right = "hdixf", []
    for task, function in zip(micro_tasks(40, 9), MICRO_FUNCTIONS.values(), strict=True):
        prompts = [f"{first}>{function(first)}\n{prompt}" for prompt in task.prompts]
        said = micro[0].generate_batch(prompts, temperature=0, max_tokens=10)
        right += task.grade([one.text for one in said])
    assert sum(right) / len(right) > 0.55


def test_tags_and_states_make_the_answers_right_and_controls_do_not(micro):
    model, shelf = micro
    for name, found in measure(model, dict(shelf), n=200, seed=11, seeds=[100]).items():
        assert found["tag"] >= 0.98, name
        assert found["state"] >= 0.95, name
        assert found["zero"] <= 0.4, name
        for control in (found["wrong"], found["transposed"], *found["random"]):
            assert control <= found["zero"] + 0.05, name


def test_training_queries_are_answered_no_better_than_held_out_ones(micro):
    model, shelf = micro
    seen = Experiment(model, {"sort": shelf["sort"]}, micro_tasks(200, 3, held_out=False)[2]).run()["right"].mean()
    held = Experiment(model, {"sort": shelf["sort"]}, micro_tasks(200, 3)[2]).run()["right"].mean()
    assert abs(seen - held) < 0.06


def test_other_seeds_give_other_states_that_do_the_same(micro):
    model, shelf = micro
    card = json.loads((Path(str(files("rwkvlab.bundled"))) / "micro" / "card.json").read_text("utf-8"))
    for seed in (1, 2):
        other, twin = bundled("micro", seed)
        assert other.card == model.card
        assert list(twin) == list(shelf)
        assert not twin.unreadable
        for name, state in twin.items():
            assert state.card.name == name
            assert same_base(state.card.base, model.card.fingerprint)
            assert state.card.recipe == shelf[name].card.recipe.replace("seed 0", f"seed {seed}")
            assert float((state.wkv - shelf[name].wkv).norm()) > 0.1 * float(state.wkv.norm())
        rows = Experiment(model, dict(twin), micro_tasks(60, 12)).run()
        right = rows[rows["state"] == rows["task"]].groupby("task")["right"].mean()
        assert (right >= 0.9).all()
        for name, found in card[f"accuracy, seed {seed}"].items():
            assert found["state"] >= 0.95, name
            assert max(found["wrong"], found["transposed"]) <= found["zero"] + 0.05, name


@pytest.mark.parametrize("seed", [3, -1, True, 1.0, None, "1"])
def test_an_unknown_seed_is_refused(seed):
    with pytest.raises(ArgError, match=r"seed: need an integer in \[0, 2\]"):
        bundled("micro", seed)


def test_the_wheel_will_hold_every_file_of_the_model():
    root = Path(str(files("rwkvlab")))
    patterns = tomllib.loads((root.parent / "pyproject.toml").read_text("utf-8"))
    found = {
        path for pattern in patterns["tool"]["setuptools"]["package-data"]["rwkvlab"] for path in root.glob(pattern)
    }
    assert {path for path in (root / "bundled" / "micro").rglob("*") if path.is_file()} <= found


def test_an_unknown_name_is_refused_with_what_there_is():
    with pytest.raises(ArgError, match="need one of micro, rwkv7, rwkv6, got 'rwkv9'"):
        bundled("rwkv9")


def test_import_loads_no_model():
    code = "import rwkvlab.bundled, torch, gc; print(sum(isinstance(x, torch.Tensor) for x in gc.get_objects()))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120)
    assert out.stdout.strip() == "0"


def test_the_files_are_small_and_the_weights_are_plain(micro):
    weights = micro[0]._weights
    assert weights.emb.dtype == torch.float32
    assert sum(state.wkv.numel() for state in micro[1].values()) == 6 * 2 * 4 * 16 * 16
