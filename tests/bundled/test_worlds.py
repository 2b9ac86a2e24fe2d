"""The bundled world models: how they are opened, and, where their files are there, what they can do."""

import json
from importlib.resources import files
from pathlib import Path

import pytest
import torch

from rwkvlab.bundled import shelf as shelf_module
from rwkvlab.bundled.evidence_arms import run_arms
from rwkvlab.bundled.shelf import WORLDS, bundled, open_world
from rwkvlab.bundled.skills import SKILLS, file_name, skill_of
from rwkvlab.bundled.world_recipe import read_states, write_states
from rwkvlab.errors import ArgError, PathError
from rwkvlab.model.random_weights import random_weights
from rwkvlab.shapes import Dims
from rwkvlab.states.card import same_base
from rwkvlab.states.state import State
from rwkvlab.tasks.cities import CITIES

ROOT = Path(str(files("rwkvlab.bundled")))
RANKS = {"rwkv7": {"w": 4, "a": 4, "v": 4, "g": 4}, "rwkv6": {"maa": 4, "decay": 4}}
there = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.skipif(not (ROOT / n).is_dir(), reason="not bundled")) for n in WORLDS]
)


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """A folder with models of random weights in the place of the package's; returns it."""
    for name, arch in (("rwkv7", "x070"), ("rwkv6", "x060")):
        (tmp_path / name / "states").mkdir(parents=True)
        dims = Dims(arch, L=2, H=2, C=32, K=16, V=16, ffn=64, vocab=257)
        weights = {key: value.bfloat16() for key, value in random_weights(dims, RANKS[name]).items()}
        torch.save(weights, tmp_path / name / f"{name}.pth")
        tokens = [chr(i) if i < 0x80 else bytes([i]) for i in range(256)]
        lines = "".join(f"{i} {token!r} {len(token)}\n" for i, token in enumerate(tokens, 1))
        (tmp_path / name / "vocab.txt").write_text(lines, "utf-8")
    monkeypatch.setattr(shelf_module, "files", lambda _: tmp_path)
    return tmp_path


@pytest.mark.parametrize("name", WORLDS)
def test_a_world_is_opened_with_its_shelf(stand_in, name):
    model = open_world(stand_in / name, "cpu")
    state = State(torch.ones(2, 2, 16, 16), like=model).named("emoji")
    write_states({SKILLS[8]: state}, stand_in / name / "states", 5_000_000, "20261123")
    model, shelf = bundled(name)
    assert model.card.name == name and model.dims.arch == state.card.arch
    assert model.dtype == (torch.bfloat16 if torch.cuda.is_available() else torch.float32)
    assert model.tokenizer.decode(model.encode("东京 ✈️")) == "东京 ✈️"
    (found,) = shelf.find("emoji")
    assert found + ".safetensors" == file_name(SKILLS[8], model.dims.arch, 5_000_000, "20261123")
    assert torch.equal(shelf[found].wkv, state.wkv)


def test_seeds_are_those_of_micro_alone(stand_in):
    with pytest.raises(ArgError, match=r"seed: the states of 'rwkv7' come with seed 0 alone, got 2"):
        bundled("rwkv7", 2)
    with pytest.raises(ArgError, match=r"seed: need an integer in \[0, 2\]"):
        bundled("rwkv6", 3)


def test_what_is_missing_of_a_world_is_named(stand_in):
    (stand_in / "rwkv7" / "vocab.txt").unlink()
    with pytest.raises(PathError, match=r"'rwkv7': vocab\.txt: missing from this installation; install"):
        bundled("rwkv7")
    (stand_in / "rwkv6" / "rwkv6.pth").unlink()
    (stand_in / "rwkv6" / "states").rmdir()
    with pytest.raises(PathError, match=r"'rwkv6': rwkv6\.pth, states: missing"):
        bundled("rwkv6")


@there
def test_the_files_are_whole_small_and_of_one_model(name):
    model, shelf = bundled(name)
    card = json.loads((ROOT / name / "card.json").read_text("utf-8"))
    assert card["fingerprint"] == model.card.fingerprint and card["parameters"] > 5_000_000
    assert not shelf.unreadable and [skill_of(state) for state in shelf].count(None) == 0
    assert {skill_of(state) for state in shelf} == set(SKILLS)
    assert set(card["states"]) == {f"{state}.safetensors" for state in shelf}
    for state in shelf.values():
        assert same_base(state.card.base, model.card.fingerprint) and state.card.arch == model.dims.arch
        assert not state.has_shifts and state.card.recipe.startswith("tuned: ")
    assert max(path.stat().st_size for path in (ROOT / name / "states").iterdir()) <= 200_000
    every = [path for folder in ("micro", *WORLDS) for path in (ROOT / folder).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in every) <= 30 * 2**20


@there
def test_what_must_hold_of_the_evidence_holds(name):
    evidence = json.loads((ROOT / name / "card.json").read_text("utf-8"))["evidence"]
    assert evidence["questions of each task"] >= 100 and len(evidence["tuning seeds"]) >= 5
    assert len(evidence["musts"]) == 4
    assert [one["what"] for one in evidence["musts"] if not one["holds"]] == []


@there
def test_the_seed_scene_is_answered_in_emoji_and_without_a_state_not(name):
    model, shelf = bundled(name)
    (emoji,) = shelf.find("emoji")
    asked = {"max_tokens": 60, "temperature": 0.0, "presence": 0.0, "frequency": 0.0}
    for question in ("东京到巴黎怎么走?", "东京到巴黎怎么走？", "东京到巴黎怎么走"):
        said, plain = (one.text for one in model.chat_batch([question] * 2, [shelf[emoji], None], **asked))
        for text in (said, plain):
            assert text.index(CITIES["tokyo"].airport) < text.index(CITIES["paris"].airport)
        assert "✈" in said and "✈" not in plain


@there
def test_some_questions_are_answered_by_states_and_not_by_controls(name):
    model = open_world(ROOT / name, "cpu")
    skills = [skill for skill in SKILLS if skill.name in ("sort", "json", "emoji", "reverse")]
    states = {(skill, 0): state for skill, state in read_states(model, ROOT / name / "states", skills).items()}
    rows = run_arms(model, states, [0], n=10, seed=5, draws=1, skills=skills)
    share = rows.groupby("arm")["right"].mean()
    assert share["state"] >= 0.9 and share["tag"] >= 0.9 and rows[rows["arm"] == "state"]["content"].mean() >= 0.9
    assert share["no state"] <= 0.5
    for control in ("wrong", "random", "shuffled", "negative", "transposed"):
        assert share[control] <= share["no state"] + 0.1, control
