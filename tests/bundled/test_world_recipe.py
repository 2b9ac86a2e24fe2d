"""The recipe of the world models' states: what they are tuned on, how they are named, what is written."""

import json
import zlib

import pytest
import torch

from rwkvlab.bundled import world_recipe
from rwkvlab.bundled.shelf import open_world
from rwkvlab.bundled.skills import CHARACTERS, FUNCTIONS, SKILLS, examples, file_name, queries, skill_of, windows
from rwkvlab.bundled.world_recipe import (
    Recipe,
    model_card,
    read_states,
    tune_states,
    write_card,
    write_states,
)
from rwkvlab.errors import ArgError, PathError
from rwkvlab.model.random_weights import random_weights
from rwkvlab.shapes import Dims
from rwkvlab.states.names import parse_name
from rwkvlab.states.shelf import Shelf
from rwkvlab.states.state import State
from rwkvlab.tasks.builtin import MICRO_FUNCTIONS
from rwkvlab.tasks.styleworld import combinations, question, turn

BY_NAME = {skill.name: skill for skill in SKILLS}
SOURCES = ("tang", "song", "shakespeare", "austen")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    for source in SOURCES:
        for name, mark in ((source, "known"), (f"{source}.held", "held")):
            documents = ["\n\n".join(f"{mark} {d} {p} " + "x" * 50 for p in range(9)) for d in range(40)]
            (folder / f"{name}.txt").write_text("\n\n\n".join(documents) + "\n", "utf-8")
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder as a bundled model's: random weights, a vocabulary of bytes."""
    made = tmp_path_factory.mktemp("model")
    dims = Dims("x070", L=2, H=2, C=32, K=16, V=16, ffn=64, vocab=257)
    weights = random_weights(dims, {"w": 4, "a": 4, "v": 4, "g": 4})
    torch.save({key: value.bfloat16() for key, value in weights.items()}, made / "rwkv7.pth")
    tokens = [chr(i) if i < 0x80 else bytes([i]) for i in range(256)]
    lines = "".join(f"{i} {token!r} {len(token)}\n" for i, token in enumerate(tokens, 1))
    (made / "vocab.txt").write_text(lines, "utf-8")
    return made


def test_there_is_a_skill_for_each_function_style_and_source_and_two_are_absent():
    families = [skill.family for skill in SKILLS]
    assert [families.count(name) for name in ("function", "style", "source")] == [7, 7, 4]
    assert [skill.name for skill in SKILLS if skill.absent] == ["swap", "list"]
    assert FUNCTIONS["swap"]("abcd") == "dbca" and {**FUNCTIONS, "swap": None} == {**MICRO_FUNCTIONS, "swap": None}


def test_nothing_that_is_held_out_is_tuned_on(data):
    held = {
        turn(question(c, language, p))
        for c in combinations(held_out=True)
        for language in ("en", "zh")
        for p in range(3)
    }
    for skill in SKILLS:
        made = examples(skill, 40, 1, data)
        assert len(made) == 40 and made != examples(skill, 40, 2, data) and made == examples(skill, 40, 1, data)
        if skill.family == "function":
            assert all(zlib.crc32(prompt[:-1].encode()) % 8 for prompt, _ in made)
            assert all(FUNCTIONS[skill.name](prompt[:-1]) == answer for prompt, answer in made)
        elif skill.family == "style":
            assert not held & {prompt for prompt, _ in made} and len({prompt for prompt, _ in made}) == 40
        else:
            assert all("held" not in text and text.startswith("known") for text in made)
            assert all(len(text) <= CHARACTERS[skill.name] for text in made)
    with pytest.raises(ArgError, match="--data"):
        examples(BY_NAME["tang"], 3, 0, None)


def test_queries_tell_all_seven_functions_apart():
    asked = queries(300, 0, held_out=True)
    assert len(set(asked)) == 300
    assert all(len({function(query) for function in FUNCTIONS.values()}) == 7 for query in asked)


def test_windows_are_held_out_whole_and_do_not_overlap(data):
    found = windows(data, "austen", 5)
    assert len(found) == len(set(found)) == 5
    assert all(text.startswith("held") and len(text) == 640 for text in found)
    parts = [line for text in windows(data, "tang", 1000) for line in text.split("\n\n")]
    assert len(parts) == len(set(parts))


def test_a_file_name_says_what_the_state_is_for():
    for skill in SKILLS:
        name = file_name(skill, "x070", 5_346_560, "20261123")
        said = parse_name(name)
        assert (said.arch, said.size, said.date, said.ext) == ("x070", "5M", "20261123", ".safetensors")
        assert said.ctx == skill.context and skill_of(name) == skill
    name = file_name(BY_NAME["emoji"], "x060", 6_136_832, "20261123")
    assert name == "rwkv-x060-emoji_single_round-6M-20261123-ctx112.safetensors"
    assert skill_of("rwkv-x060-something-6M.safetensors") is None


def test_states_are_found_by_what_they_are_for_and_are_small_files(tmp_path):
    skills = [BY_NAME[name] for name in ("emoji", "sort", "tang", "list")]
    wkv = torch.randn(6, 4, 64, 64, generator=torch.Generator().manual_seed(0))
    states = {skill: State(wkv).named(skill.name) for skill in skills}
    states = {skill: state.replace(card=state.card.replace(arch="x070")) for skill, state in states.items()}
    files = write_states(states, tmp_path / "states", 5_346_560, "20261123")
    assert max(path.stat().st_size for path in files) <= 200_000
    write_states(states, tmp_path / "states", 5_346_560, "20261124")
    shelf = Shelf(tmp_path / "states")
    assert len(shelf) == 4 and not shelf.unreadable
    (name,) = shelf.find("emoji")
    assert torch.equal(shelf[name].wkv, wkv.half().float()) and "20261124" in name


def test_tuned_states_are_those_on_disk_and_carry_what_they_are(folder, data, tmp_path):
    model = open_world(folder, "cpu")
    skills = [BY_NAME[name] for name in ("copy", "emoji", "song")]
    recipe = Recipe(examples=6, steps=3, batch=2, seeds=(0, 1), source_steps=2)
    states = tune_states(model, recipe, data, skills)
    assert set(states) == {(skill, seed) for skill in skills for seed in (0, 1)}
    for skill in skills:
        first, second = states[skill, 0], states[skill, 1]
        assert not torch.equal(first.wkv, second.wkv) and float(first.wkv.abs().max()) > 0
        assert first.card.base == model.card.fingerprint
        assert first.card.template == ("world" if skill.name == "emoji" else "raw")
        steps = "2 steps" if skill.name == "song" else "3 steps"
        assert steps in first.card.recipe and "seed 0" in first.card.recipe and skill.family in first.card.notes[0]
    mine = {skill: states[skill, 0] for skill in skills}
    files = write_states(mine, tmp_path, world_recipe.parameters(model), "20261123")
    back = read_states(model, tmp_path, skills)
    assert all(torch.equal(back[skill].wkv, state.wkv) for skill, state in mine.items())
    assert all(back[skill].card.base == model.card.fingerprint for skill in skills)
    with pytest.raises(PathError, match=r"no states of reverse, .*world_recipe"):
        read_states(model, tmp_path)
    card = model_card(model, folder, recipe, files)
    assert card["states"][files[1].name] == "emoji_single_round" and card["parameters"] > 1000


def test_the_command_writes_states_and_a_card_that_keeps_the_evidence(folder, data, tmp_path, capsys):
    write_card(folder, {"evidence": {"musts": [1, 2]}, "name": "old"})
    log = {
        "tokens, with padding": 5,
        "held-out losses of full weight": [{"step": 0, "text": 9.0}, {"step": 1, "text": 2}],
    }
    (folder / "log.json").write_text(json.dumps(log))
    argv = [
        "--model",
        folder,
        "--data",
        data,
        "--work",
        tmp_path,
        "--seeds",
        "3",
        "4",
        "--steps",
        "1",
        "--examples",
        "2",
    ]
    argv += ["--skills", "swap", "tang", "--date", "20261123", "--device", "cpu"]
    world_recipe.main(list(map(str, argv)))
    assert "4 states" in capsys.readouterr().out
    assert sorted(skill_of(path.name).name for path in (folder / "states").iterdir()) == ["swap", "tang"]
    assert len(list((tmp_path / "seed-4").iterdir())) == 2 and not (tmp_path / "seed-3").exists()
    card = json.loads((folder / "card.json").read_text("utf-8"))
    assert card["name"] == "rwkv7" and card["evidence"] == {"musts": [1, 2]}
    assert card["training tokens, with padding"] == 5
    assert card["held-out losses (nats a token that can be known)"] == {"text": 2}
    assert card["fingerprint"] == open_world(folder, "cpu").card.fingerprint
    assert len(card["states"]) == 2 and "tuning" not in card
    again = [
        "--model",
        folder,
        "--seeds",
        "3",
        "--steps",
        "1",
        "--examples",
        "2",
        "--skills",
        "copy",
        "--device",
        "cpu",
    ]
    world_recipe.main(list(map(str, again)))  # of one more
    card = json.loads((folder / "card.json").read_text("utf-8"))
    assert sorted(card["states"].values()) == ["copy_function", "swap_function", "tang_poems"]
    assert "nothing else" in card["limits"][0] and "MIT" in card["data"]["austen"]
    with pytest.raises(ArgError, match="--work"):
        world_recipe.main(["--model", str(folder), "--seeds", "0", "1"])
    with pytest.raises(PathError, match=r"rwkv7\.pth or rwkv6\.pth"):
        open_world(tmp_path)
