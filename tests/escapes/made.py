"""What holds a text from outside, made without a model: states, files, shelves, comparisons, reports, commands."""

import contextlib
import io
import json
import re
import tempfile
from pathlib import Path
from types import SimpleNamespace

import pandas as pd
import torch
from payloads import whole

import rwkvlab as lab
from rwkvlab.cli import main
from rwkvlab.errors import show
from rwkvlab.measure.comparing.comparison import Comparison
from rwkvlab.measure.comparing.page import STARTS
from rwkvlab.measure.comparing.tokens import TOKENS
from rwkvlab.measure.influence_report import RANDOM, STATE, Influence
from rwkvlab.measure.verifying.report import Verification, describe_model, describe_state
from rwkvlab.model.vocab import VocabTokenizer
from rwkvlab.states.card import ModelCard, StateCard
from rwkvlab.states.state import State


def state_with(**fields):
    return State(torch.ones(1, 1, 4, 4), card=StateCard(**{"name": "a", "arch": "x070"} | fields))


def model_like(name="m"):
    dims = SimpleNamespace(arch="x070", L=1, H=1, V=4, K=4, C=4, vocab=9)
    card = ModelCard(name, "x070", "0" * 64)
    return SimpleNamespace(dims=dims, card=card, dtype=torch.float32, device=torch.device("cpu"))


def as_file_name(text):
    """Return what of a text can stand in a file name here."""
    return re.sub(r"[/\0\ud800-\udbff\udc00-\udc7f\udd00-\udfff]", "_", text)[:60].strip(".") or "_"


def as_toml(text):
    return '"' + "".join(f"\\U{ord(char):08x}" for char in whole(text)) + '"'


class Folder:
    """A new folder for files whose names, tensors, metadata or contents are a text."""

    def __init__(self, text, root):
        self.text, self.path = text, Path(tempfile.mkdtemp(dir=root))

    def state(self, file="a", **fields):
        """Save a state under a name and return its path."""
        path = self.path / f"{as_file_name(file)}.safetensors"
        lab.save_state(state_with(**fields), self.path / "saved.safetensors")
        return (self.path / "saved.safetensors").rename(path)

    def bad(self):
        path = self.path / f"{as_file_name(self.text)}.pth"
        path.write_bytes(b"no state at all")
        return path

    def lines(self, content, suffix=".jsonl"):
        """Write a text file, its name and its content the text's, and return its path."""
        path = self.path / f"{as_file_name(self.text)}{suffix}"
        path.write_bytes(content.encode("utf-8", "surrogatepass"))
        return path

    def tensors(self, key, **metadata):
        """Write a file with a tensor of this name and return its path."""
        path = self.path / "a.safetensors"
        shape = torch.ones(1, 4, 4) if key.endswith("time_state") else torch.ones(3)
        raw = shape.numpy().tobytes()
        header = {key: {"dtype": "F32", "shape": list(shape.shape), "data_offsets": [0, len(raw)]}}
        text = json.dumps(header | ({"__metadata__": metadata} if metadata else {})).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text + raw)
        return path

    def config(self, **fields):
        (self.path / "models").mkdir()
        path, entry = self.path / "Config.toml", {"path": "a.state", "name": "a"} | fields
        lines = "\n".join(f"{key} = {as_toml(value)}" for key, value in entry.items())
        path.write_text(f'[model]\npath = "models"\n[[state]]\n{lines}\n', encoding="utf-8")
        return path

    def shelf(self):
        """Return a shelf of one state and one unreadable file, both named by the text."""
        self.state(self.text)
        self.bad()
        return lab.Shelf(self.path)


def reasons(shelf):
    return " ".join(shelf.unreadable.values())


def comparison(prompt="p", arm="a", answer="b", template="world", setting="c", card="d", about="e", first="zero"):
    """Return a comparison as `compare` makes it, of two tokens an answer, without the counting."""
    arms = (first, arm)
    rows = [(prompt, name, 0, answer, 2, 0.0, "end") for name in arms]
    table = pd.DataFrame(rows, columns=["prompt", "state", "sample", "text", "tokens", "logprob", "finish"])
    same = dict(zip(arms, (True, False), strict=True))
    tokens = pd.DataFrame(
        [
            (prompt, name, 0, along, at, id_, answer, 2.0, 0.1, 0.2, same[name])
            for name in arms
            for along, ids in (("own", (5, 6 + same[name])), ("baseline", (5, 7)))
            for at, id_ in enumerate(ids)
        ],
        columns=list(TOKENS),
    )
    written = tokens[tokens["along"] == "own"].drop(columns=["along", "kl", "surprise", "surprise_baseline"])
    cards = [(name, *[card] * 6, 1.0, card) for name in arms]
    starts = pd.DataFrame(cards, columns=list(STARTS))
    return Comparison(table, template, {"stop": setting}, written, {"model": about}, starts, lambda: tokens)


FIELDS = ("prompt", "arm", "answer", "template", "setting", "card", "about")


def everywhere(text):
    """Return a comparison in which every text is this one, but for the name of the baseline."""
    return comparison(**dict.fromkeys(FIELDS, text))


def paged(compared):
    """Return an object that is shown as the page of a comparison."""

    class Page:
        __repr__ = compared.__repr__
        _repr_html_ = compared._page

    return Page()


def verified(text):
    """Return a report as `verify` makes it, without the counting."""
    state = describe_state(state_with(name=text, source=text, recipe=text, notes=(text,)))
    about = {"model": describe_model(model_like(text), None), **state, "texts": f"template {show(text)}"}
    return Verification(pd.DataFrame(), pd.DataFrame(), (), (), "undecided", about)


def influence_of(name):
    """Return a report as `influence` makes it, without the running."""
    rows = [{"token": at, "start": start, "kl": 1.0} for start in (STATE, RANDOM) for at in range(1, 40)]
    half = pd.DataFrame({"layer": [0], "head": [0], "half_life": [8.0]})
    return Influence(pd.DataFrame(), half, pd.DataFrame(rows), name, tokens=40, every=1)


def command(*args):
    """Return what a command prints, both streams."""
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(text), contextlib.suppress(SystemExit):
        main([str(arg) for arg in args])
    return text.getvalue()


class Saying(VocabTokenizer):
    """A tokenizer by which a model writes one text with every token: whatever it draws, it says this."""

    def __init__(self):
        super().__init__("saying", {1: b"a"}, 257)

    def say(self, text):
        self._tokens = dict.fromkeys(range(1, 257), text.encode())
        return self

    def encode(self, text):
        return [1, 2] if text else []
