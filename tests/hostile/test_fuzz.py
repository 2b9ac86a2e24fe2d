"""Mutated files never bring forth an error that is not ours, whichever reader gets them."""

import json
import os
import random
import tempfile
import time
import warnings
from collections import Counter
from pathlib import Path

import builders as b
import mutate
import pytest
import torch
from corpus import MODEL, read_all

from rwkvlab.errors import RwkvLabError
from rwkvlab.model.containers import open_container
from rwkvlab.model.weights import survey
from rwkvlab.states.ai00json import peek_json
from rwkvlab.states.files import load_state, peek_state, save_state
from rwkvlab.states.state import State
from rwkvlab.tensorfile.unpickle import unpickle

SECONDS = 5.0  # that one execution may take on a busy machine
INDEX = "model.safetensors.index.json"


def survey_of(path):
    with open_container(path) as file:
        return survey(file)


@pytest.fixture
def place():
    """A folder in memory where there is one."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.path.isdir("/dev/shm") else None) as folder:
        yield Path(folder)


@pytest.fixture
def targets(place):
    """(name, share, make(rng) -> bytes, run(bytes)): every reader, with the mutations that go deepest in it."""
    state = State(torch.arange(16.0).view(1, 1, 4, 4), att_shift=torch.ones(1, 4), ffn_shift=torch.ones(1, 4))
    own = save_state(state, place / "seed.safetensors").read_bytes()
    ai00 = save_state(State(torch.arange(32.0).view(2, 1, 4, 4)), place / "seed.state").read_bytes()
    mixed = b.safe_of({"w": torch.ones(2), "v": torch.ones(1, 3).double(), "e": torch.empty(0)}, {"a": "b", "c": "文"})
    item = {"data": [0.5, -1.0, 2.5], "shape": [1, 3, 1, 1]}
    answers = [item, {"object": "list", "model": "rwkv7-x.st", "data": [{"object": "states"} | item], "usage": {}}]
    shards, seeds = [ai00, mixed, own], mutate.pth_seeds()
    folder = place / "hf"
    folder.mkdir()
    config = {"model_type": "rwkv7", "norm_eps": 1e-5}
    (folder / "a.safetensors").write_bytes(b.safe_of({"model.norm.weight": torch.ones(2)}))
    index = {"metadata": {"total_size": 8}, "weight_map": {"model.norm.weight": "a.safetensors"}}

    def into(name, reader, given=None):
        handle = os.open(place / name, os.O_RDWR | os.O_CREAT)

        def run(raw):
            os.ftruncate(handle, 0)
            os.pwrite(handle, raw, 0)
            reader(given or place / name)

        return run

    def folder_with(name, other, text):
        (folder / other).write_text(json.dumps(text))
        return into(f"hf/{name}", survey_of, folder)

    def card(rng):
        header, data = mutate.split(own)
        meta = header["__metadata__"]
        if rng.random() < 0.5:
            text = mutate.as_json(rng, mutate.values(rng, {"base": "ab" * 32} | json.loads(meta["card"])))
            meta["card"] = text.decode("utf-8", "replace")
        else:
            header["__metadata__"] = mutate.values(rng, meta)
        return b.safe(header, data)

    def archive(rng):
        return mutate.pth(rng, seeds)

    def pickle(rng):
        return mutate.opcodes(rng, rng.choice(mutate.PICKLES))

    def answer(rng):
        return mutate.json_text(rng, answers)

    return [
        ("read .pth", 25, archive, into("a.pth", read_all)),
        ("load_state .pth", 10, archive, into("b.pth", lambda path: load_state(path, MODEL))),
        ("unpickle (in memory)", 20, pickle, lambda raw: unpickle(raw, "x")),
        ("read safetensors", 20, lambda rng: mutate.safetensors(rng, shards), into("a.safetensors", read_all)),
        ("load_state .state", 5, lambda rng: mutate.safetensors(rng, [ai00]), into("a.state", load_state)),
        ("load_state of ours", 5, card, into("own.safetensors", load_state)),
        ("peek_state of ours", 3, card, into("p.safetensors", peek_state)),
        ("load_state JSON", 5, answer, into("a.json", load_state)),
        ("peek_state JSON", 3, answer, into("b.json", peek_json)),
        ("index.json", 2, lambda rng: mutate.json_text(rng, [index]), folder_with(INDEX, "config.json", config)),
        ("config.json", 2, lambda rng: mutate.json_text(rng, [config]), folder_with("config.json", INDEX, index)),
    ]


def fuzz(targets, executions, seed):
    """Run mutated files through all readers; returns how often each ended how, and prints it."""
    tally, slowest, began = {}, 0.0, time.perf_counter()
    total = sum(share for _, share, *_ in targets)
    for name, share, make, run in targets:
        ends = tally.setdefault(name, Counter())
        for number in range(executions * share // total):
            raw = make(random.Random(f"{seed} {name} {number}"))
            start = time.perf_counter()
            try:
                run(raw)
                ends["read"] += 1
            except RwkvLabError as error:
                ends[type(error).__name__] += 1
                message = str(error)
                assert message.isprintable() and len(message) <= 400, (name, message, raw.hex())
            except Exception as error:
                raise AssertionError(f"{name}: seed {seed!r}, execution {number}: {error!r} on {raw.hex()}") from error
            slowest = max(slowest, time.perf_counter() - start)
    count, seconds = sum(map(Counter.total, tally.values())), time.perf_counter() - began
    for name, ends in tally.items():
        print(f"{name:22} {ends.total():7}  " + ", ".join(f"{end} {times}" for end, times in ends.most_common()))
    print(f"{count} executions in {seconds:.0f} s, {count / seconds:.0f}/s, the slowest {slowest:.3f} s")
    assert slowest < SECONDS
    return tally


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def test_mutated_files_are_read_or_refused(targets):
    tally = fuzz(targets, 2000, "short")
    # the mutations are no use if all of them fail at the first check
    assert all(len(ends) > 1 and ("json" in name or ends["read"]) for name, ends in tally.items()), tally


@pytest.mark.long
@pytest.mark.timeout(900)
def test_two_hundred_thousand_mutated_files_are_read_or_refused(targets):
    """An execution is one mutated file, written and read by one reader; one in five is a pickle in memory alone."""
    tally = fuzz(targets, 200_000, os.environ.get("FUZZ_SEED", "long"))
    assert sum(map(Counter.total, tally.values())) >= 199_900
