"""What is printed: commands, reprs of one line, bars, answers as they are written. Nothing in them acts or hides."""

from types import SimpleNamespace

import pytest
from made import Folder, command, model_like, state_with
from payloads import CHINESE, FEW, FORTY, HARMLESS, PAYLOADS, acting, whole

import rwkvlab as lab
from rwkvlab.model import inspect_base, weights
from rwkvlab.model.chat import Turn, choose_template
from rwkvlab.model.engine import Model
from rwkvlab.model.sampling import Sampling
from rwkvlab.states.card import ModelCard, StateCard
from rwkvlab.states.toml import read_config
from rwkvlab.tensorfile import read_tensors

SAMPLING = Sampling(9, 1.0, 0.9, 0, 0.0, 0.0, (), (), 0)
# objects whose repr is one line
REPRS = {
    "a name read": lambda text, _: lab.parse_name(text),
    "a state's card": lambda text, _: StateCard(name=text, notes=(text,)),
    "a model's card": lambda text, _: ModelCard(text, "x070", "0" * 64),
    "a template": lambda text, _: (
        lab.Template(text or "a", text + "{question}", stop=(text or "a",))
        if "{question}" not in text
        else StateCard(name=text)
    ),
    "a task": lambda text, _: lab.Task.of(text, [(text, text)]) if text.strip() else StateCard(name=text),
    "an example": lambda text, _: lab.Example(text, text),
    "an answer": lambda text, _: lab.Generation(text, (1,), (0.0,), state_with(name=text), "end", SAMPLING, text),
    "a turn of a conversation": lambda text, _: Turn(text, text, (1,)),
    "a config's entry": lambda text, folder: read_config(folder.config(name=text)),
    "a file of tensors": lambda text, folder: read_tensors(folder.state(text)),
}
COMMANDS = {
    "ask": lambda text, _: ("ask", "-m", f"/no/{text}", "--", text),
    "ask --html": lambda text, _: ("ask", "-m", "m", "--html", f"/no/{text}/a.html", "a"),
    "inspect": lambda text, folder: ("inspect", folder.bad(), folder.state(text, name=text)),
    "inspect --json": lambda text, folder: (
        *("inspect", "--json", folder.bad(), folder.state(text, template=text, recipe=text)),
    ),
    "diff": lambda text, folder: ("diff", folder.state(text, name=text, recipe=text), folder.bad()),
    "diff --json": lambda text, folder: (
        *("diff", "--json", folder.state(text, name=text, recipe=text), Folder(text, folder.path).state(notes=(text,))),
    ),
    "convert": lambda text, folder: ("convert", folder.state(text, name=text), folder.path / "b.state", "--overwrite"),
    "convert nothing": lambda text, folder: ("convert", folder.bad(), folder.path),
    "tune": lambda text, folder: ("tune", "m.pth", folder.lines(whole(text)), "-o", folder.path / "a.pth"),
    "verify": lambda text, folder: ("verify", folder.bad(), folder.state(text), "--texts", folder.lines(f"{{{text}")),
    "an argument": lambda text, _: ("ask", "--seed", text, "a"),
    "a command": lambda text, _: (text,),
}


@pytest.mark.parametrize("sink", REPRS)
def test_a_repr_is_one_line_that_does_not_act(sink, root):
    for text in PAYLOADS:
        shown = repr(REPRS[sink](text, Folder(text, root)))
        assert not acting(shown, ""), text[:40]
    assert all(text in repr(REPRS[sink](text, Folder(text, root))) for text in (*CHINESE[:3], HARMLESS))


@pytest.mark.parametrize("sink", COMMANDS)
def test_nothing_that_a_command_prints_acts(sink, root):
    lines = command(*COMMANDS[sink](HARMLESS, Folder(HARMLESS, root))).count("\n")
    assert lines
    for text in FEW:
        shown = command(*COMMANDS[sink](text, Folder(text, root)))
        assert shown and not acting(shown), (text[:40], shown[:300])
        assert shown.count("\n") <= lines + 3 and len(shown) < 90_000, (text[:40], shown[:300])


def test_a_model_shows_its_name_and_nothing_acts():
    for text in PAYLOADS:
        assert not acting(Model.__repr__(model_like(text)), ""), text


@pytest.mark.parametrize("module", [weights, inspect_base])
def test_the_bar_of_a_file_that_is_read_has_its_name_and_nothing_acts(module, root, tiny_file, monkeypatch):
    said = []

    class Bar(module.tqdm):
        def __init__(self, *args, **options):
            said.append(options["desc"])
            super().__init__(*args, **options | {"disable": True})

    monkeypatch.setattr(module, "tqdm", Bar)
    for text in (*FORTY, *CHINESE):
        path = Folder(text, root).lines("", ".pth")
        path.unlink()
        path.symlink_to(tiny_file)
        said.clear()
        lab.load_model(path, tokenizer="bytes") if module is weights else lab.inspect_file(path)
        assert said and not acting("".join(said), ""), text
        assert text not in CHINESE or text in said[0]


def test_nothing_that_a_model_or_a_state_says_acts_on_the_terminal_of_ask(root, monkeypatch):
    class Writing(SimpleNamespace):
        def chat(self, question, state, *, template, on_text, **_):
            on_text(self.text)
            return SimpleNamespace(finish="end")

    for text in FEW:
        model = Writing(**vars(model_like()), text=text)
        monkeypatch.setattr(lab, "load_model", lambda *_, model=model, **__: model)
        file = Folder(text, root).state(text, name=text, template=text, notes=(text, text))
        shown = command("ask", "question", "-m", "model", "-s", file, "--zero", "--template", "world")
        assert "--- zero" in shown and "template world" in shown, (text, shown)
        assert not acting(shown, "\n\t\u200c\u200d"), (text, shown)
        assert text not in CHINESE or shown.count(text) >= 3


@pytest.mark.parametrize("option", [(), ("--traceback",)])
def test_an_error_that_is_not_ours_does_not_act(option, monkeypatch):
    for text in FEW:

        def fail(*_, text=text, **__):
            raise ValueError(text)

        monkeypatch.setattr(lab, "load_model", fail)
        shown = command("ask", "question", "-m", "model", *option)
        assert "not foreseen" in shown and not acting(shown, "\n" if not option else "\n\t\u200c\u200d"), text
        assert option or shown.count("\n") == 1


def test_a_warning_says_the_name_of_a_state_and_its_template(warned):
    for text in PAYLOADS:
        choose_template("raw", [state_with(name=text, template=text)])
    assert len(warned) == len(PAYLOADS) and all(text in str(warned[-1].message) for text in CHINESE[-1:])
