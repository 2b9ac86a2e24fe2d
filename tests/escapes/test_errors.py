"""Every kind of error names what it is about: nothing of that acts on a terminal, hides, or makes a second line."""

import inspect
import re
import zipfile
from concurrent.futures import Future
from types import SimpleNamespace

import pandas as pd
import pytest
import torch
from made import Folder, command, model_like, reasons, state_with
from payloads import CHINESE, HARMLESS, PAYLOADS, acting, whole

import rwkvlab as lab
from rwkvlab import errors
from rwkvlab.errors import RwkvLabError
from rwkvlab.measure.arms import name_arms
from rwkvlab.measure.experiments.run import run_parts
from rwkvlab.model.examples import encode_examples
from rwkvlab.model.memory import check_room
from rwkvlab.model.tuning import many
from rwkvlab.model.tuning.saving import Saving
from rwkvlab.model.vocab import VocabTokenizer, read_vocab
from rwkvlab.plots import plot_curve
from rwkvlab.states.card import StateCard
from rwkvlab.states.controls import shuffled
from rwkvlab.states.layouts import OURS
from rwkvlab.tasks.templates import Template
from rwkvlab.tensorfile import write_pth, write_safetensors

LONGEST = 60_000  # characters of a message; most are far below
KINDS = {name: kind for name, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, RwkvLabError)}
# these quote nothing from outside, or are a base that is never raised
SILENT = {"RwkvLabError", "LoadError", "Cancelled", "UnfinishedError", "FormatError"}


def pickled(folder, text):
    """Return a file of PyTorch's that asks for a function of this name."""
    path, line = folder.lines("", ".pth"), re.sub(r"\s", "_", whole(text))
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", b"\x80\x02c" + f"os\n{line}\n".encode() + b".")
        file.writestr("archive/version", b"3\n")
    return path


def cut_off(folder):
    path = folder.lines("", ".safetensors")
    path.write_bytes((100).to_bytes(8, "little") + b"{")
    return path


def failing(text):
    """Run a part in an executor that fails with a text."""
    future = Future()
    future.set_exception(ValueError(text))
    executor = SimpleNamespace(submit=lambda *_: future)
    return list(run_parts(model_like(), {0: SimpleNamespace(states=())}, executor))


def resumed(folder, text):
    """Go on from a checkpoint that says it is another run's."""
    folder.tensors("wkv", rwkvlab="tuning 1", run=f'{{"seed": "{HARMLESS}"}}', sha256=text)
    path = (folder.path / "a.safetensors").rename(folder.lines("", ".ckpt"))
    return Saving(path, {"seed": text}, {}, None).load({}, 1)


def broken(text):
    return state_with(name=text).replace(wkv=torch.full((1, 1, 4, 4), torch.nan))


# name: (the kind of error, what raises it)
ERRORS = {
    "a missing state": ("PathError", lambda text, _: lab.load_state(f"/no/{text}.pth")),
    "a missing model": ("PathError", lambda text, _: lab.load_model(f"/no/{text}.pth")),
    "a missing folder": ("PathError", lambda text, _: lab.Shelf(f"/no/{text}")),
    "a missing file of questions": ("PathError", lambda text, _: lab.load_task(f"/no/{text}")),
    "a file that is none": ("LoadError", lambda _, folder: lab.load_state(folder.bad())),
    "a model that is none": ("LoadError", lambda _, folder: lab.load_model(folder.bad())),
    "an empty file": ("EmptyFileError", lambda _, folder: lab.load_state(folder.lines("", ".pth"))),
    "a file that ends early": ("TruncatedError", lambda _, folder: lab.load_state(cut_off(folder))),
    "a pickle's function": ("UnsafeFileError", lambda text, folder: lab.load_state(pickled(folder, text))),
    "a tensor's name": ("SchemaError", lambda text, folder: lab.load_state(folder.tensors(whole(text)))),
    "a weight's name": ("SchemaError", lambda text, folder: lab.load_model(folder.tensors(whole(text)))),
    "a tensor's odd name": ("LoadError", lambda text, folder: lab.load_state(folder.tensors(f"{text}.time_state"))),
    "metadata": ("LoadError", lambda text, folder: lab.load_state(folder.tensors("w", format=text, version=text))),
    "a version": (
        "LoadError",
        lambda text, folder: lab.load_state(
            folder.tensors("wkv", format=OURS, version=text, sha256=text, order=text, card=text)
        ),
    ),
    "a card that is none": ("RwkvLabError", lambda text, _: StateCard.from_dict({"name": [text]})),
    "a card's list": ("RwkvLabError", lambda text, _: StateCard.from_dict({"notes": {text: 1}})),
    "another architecture": (
        "MismatchError",
        lambda text, folder: lab.load_state(folder.state(text, arch=text, name=text), model_like()),
    ),
    "another base": (
        "SchemaError",
        lambda text, folder: lab.load_state(folder.state(text, base=text, name=text), model_like()),
    ),
    "a sum of two bases": ("SchemaError", lambda text, _: state_with(base=text) + state_with(base="0" * 64)),
    "a sum of two kinds": ("MismatchError", lambda text, _: state_with(arch=text) + state_with(arch="x060")),
    "a state of one head": ("StateOpError", lambda text, _: shuffled(state_with(name=text))),
    "a state of NaN": ("NonFiniteError", lambda text, _: lab.random_like(broken(text))),
    "a name of a shelf": ("UnknownNameError", lambda text, folder: lab.Shelf(folder.state().parent)[text]),
    "a template's name": ("ArgError", lambda text, _: lab.compare(model_like(), "a", [], template=text)),
    "a template's text": ("ArgError", lambda text, _: Template(text, text, text, ())),
    "a bundled name": ("RwkvLabError", lambda text, _: lab.bundled(text)),
    "arms": ("ArgError", lambda text, _: name_arms({text: 3}, zero_first=True)),
    "a task's kind": ("ArgError", lambda text, _: lab.Task.of(text, [text], kind=text)),
    "a file of questions": ("FormatError", lambda text, folder: lab.load_task(folder.lines(f"{text}\n"))),
    "a question's answer": (
        "FormatError",
        lambda text, folder: lab.load_task(folder.lines('{"prompt": "a", "answer": 1}'), name=text),
    ),
    "a question with too many choices": (
        "LimitError",
        lambda _, folder: lab.load_task(
            folder.lines(f'{{"question": "a", "choices": [{", ".join(["1"] * 1001)}], "answer": 0}}'), "choice"
        ),
    ),
    "a file of examples": ("FormatError", lambda text, folder: lab.read_examples(folder.lines(f"{{{text}"))),
    "an example's role": (
        "TuneError",
        lambda text, _: encode_examples(model_like(), [{"messages": [{"role": text, "content": text}]}]),
    ),
    "a vocabulary's line": ("VocabError", lambda text, folder: read_vocab(folder.lines(f"1 {whole(text)} 1", ".txt"))),
    "a config's text": (
        "ConfigError",
        lambda text, folder: lab.read_ai00(folder.lines(f"[[state]]\na b = {whole(text)}", ".toml")),
    ),
    "a checkpoint's run": ("ResumeError", lambda text, folder: resumed(folder, text)),
    "a checkpoint that is none": ("ResumeError", lambda _, folder: Saving(folder.bad(), {}, {}, None).load({}, 1)),
    "an executor's failure": ("WorkerError", lambda text, _: failing(text)),
    "a model without room": (
        "RoomError",
        lambda text, _: check_room(errors.show(text), {"a": 1 << 60}, {"a": torch.float32}, torch.device("cpu")),
    ),
    "a name to save": ("RwkvLabError", lambda text, folder: lab.save_state(state_with(), f"{folder.path}/{text}:.pth")),
    "a folder to save to": (
        "RwkvLabError",
        lambda text, folder: lab.save_state(state_with(), f"{folder.path}/{text}/a.pth"),
    ),
    "a suffix to save": ("RwkvLabError", lambda text, folder: lab.save_state(state_with(), f"{folder.path}/a.{text}")),
    "a key to save": ("SaveError", lambda text, folder: write_pth(folder.path / "a", {text: 1})),
    "another key to save": ("SaveError", lambda text, folder: write_safetensors(folder.path / "a", {text: 1})),
    "a plot's column": ("ArgError", lambda text, _: plot_curve(pd.DataFrame(), text)),
}
NEED_A_MODEL = {"PromptError", "DivergedError"}
# reasons that a shelf gives: messages of errors that were not raised
REASONS = {
    "an unreadable one": lambda text, folder: reasons(folder.shelf()),
    "an id of a config": lambda text, folder: reasons(lab.read_ai00(folder.config(id=text))),
    "a path of a config": lambda text, folder: reasons(lab.read_ai00(folder.config(path=f"../{text}"))),
}


def error_of(sink, text, folder):
    """Return the error, or None: not every text is wrong everywhere."""
    try:
        ERRORS[sink][1](text, folder)
    except RwkvLabError as error:
        return error
    return None


def trouble(message, lines, text):
    found = [f"{char!r} in it" for char in acting(message)]
    return found + (["lines"] if message.count("\n") > lines else []) + (["long"] if len(message) > LONGEST else [])


@pytest.mark.parametrize("sink", ERRORS)
def test_nothing_in_a_message_acts_on_a_terminal(sink, root):
    harmless = error_of(sink, HARMLESS, Folder(HARMLESS, root))
    assert isinstance(harmless, KINDS[ERRORS[sink][0]]), harmless
    assert acting(str(harmless), "") == set()
    found = {text[:40]: error_of(sink, text, Folder(text, root)) for text in PAYLOADS}
    wrong = {text: trouble(str(error), 0, text) for text, error in found.items() if error is not None}
    assert not {text: why for text, why in wrong.items() if why}
    assert len(wrong) > len(PAYLOADS) // 2


@pytest.mark.parametrize("sink", REASONS)
def test_nothing_in_a_reason_acts_on_a_terminal(sink, root):
    lines = REASONS[sink](HARMLESS, Folder(HARMLESS, root)).count("\n")
    wrong = {text[:40]: trouble(REASONS[sink](text, Folder(text, root)), lines, text) for text in PAYLOADS}
    assert not {text: why for text, why in wrong.items() if why}


def test_every_kind_of_error_has_a_message_here():
    """Whoever adds a kind of error adds what raises it, with a text from outside in it."""
    assert {kind for kind, _ in ERRORS.values()} | NEED_A_MODEL | SILENT >= KINDS.keys()


def test_a_vocabulary_says_what_of_a_prompt_it_cannot_read_and_nothing_acts():
    for text in PAYLOADS:
        with pytest.raises(errors.PromptError) as caught:
            VocabTokenizer(text, {1: b"a"}).encode(f"a{text}9")
        assert not acting(str(caught.value), ""), text


def test_runs_that_diverge_are_named_and_nothing_acts(tiny, monkeypatch):
    monkeypatch.setattr(many.F, "cross_entropy", lambda logits, *_, **__: logits.sum(-1) * torch.inf)
    with pytest.raises(errors.DivergedError) as caught:
        lab.tune_many(tiny, {text: [("a", "b")] for text in PAYLOADS}, steps=1)
    assert not acting(str(caught.value), "") and all(text in str(caught.value) for text in CHINESE)


def test_chinese_in_messages_stays_readable(root):
    for text in CHINESE:
        for sink in (
            "a missing state",
            "a name of a shelf",
            "another base",
            "a template's name",
            "a pickle's function",
        ):
            assert text in str(error_of(sink, text, Folder(text, root))), sink
        assert text in command("ask", "-m", f"/no/{text}", "x")
