"""The demo's last scene: straight columns, airports compared, and a line for a model that is not there."""

from types import SimpleNamespace

import pytest

import rwkvlab as lab
from rwkvlab.cli import seed_scene as module
from rwkvlab.cli.seed_scene import QUESTION, seed_scene
from rwkvlab.errors import PathError
from rwkvlab.shapes import Dims
from rwkvlab.states.columns import text_width
from rwkvlab.tasks.styleworld import Combination, answer, is_held_out, question

ROUTE = Combination("route", "tokyo", "paris")
PLAIN, EMOJI = (answer(ROUTE, style, "zh") for style in ("plain", "emoji"))


class Shelf(dict):
    def find(self, text):
        return [name for name in self if text in name]


@pytest.fixture
def worlds(monkeypatch):
    """worlds(name -> (answer without, with the state) or an error) puts stand-ins for the bundled models in place."""

    def put(said):
        def bundled(name):
            if isinstance(said[name], Exception):
                raise said[name]

            def chat_batch(questions, states, **options):
                assert questions == [QUESTION] * 2 and options["temperature"] == 0.0
                assert states == [None, "the state"]
                return [SimpleNamespace(text=text) for text in said[name]]

            dims = Dims({"rwkv7": "x070", "rwkv6": "x060"}[name], L=2, H=2, C=32, K=16, V=16, ffn=64, vocab=257)
            counted = SimpleNamespace(parameters=5_346_560)
            model = SimpleNamespace(dims=dims, chat_batch=chat_batch, _checkpoint=counted)
            return model, Shelf({"rwkv-emoji_single_round-5M": "the state", "rwkv-json-5M": "another"})

        monkeypatch.setattr(module.lab, "bundled", bundled)

    return put


def test_the_question_is_one_that_no_model_was_trained_on():
    assert question(ROUTE, "zh") == QUESTION and is_held_out(ROUTE)


def test_both_models_answer_without_and_with_the_state_in_straight_columns(worlds):
    worlds({"rwkv7": (f" {PLAIN}", EMOJI), "rwkv6": (PLAIN[:-1], EMOJI)})
    lines = seed_scene().split("\n")
    head, seven, six = (next(line for line in lines if start in line[:9]) for start in (" " * 8, "RWKV-7", "RWKV-6"))
    columns = [text_width(line[: line.index(part)]) for line, part in ((seven, PLAIN), (six, PLAIN[:-1]))]
    columns += [text_width(line[: line.index(EMOJI)]) for line in (seven, six)]
    assert columns == [
        text_width(head[: head.index(part)]) for part in ("no state", "no state", "the state", "the state")
    ]
    assert "The airports are the same in all 4, HND to CDG" in seed_scene()
    assert "RWKV-7 5.3 M, RWKV-6 5.3 M parameters" in seed_scene() and "nothing else" in seed_scene()


def test_airports_that_differ_are_said_and_hostile_answers_do_nothing(worlds):
    worlds({"rwkv7": (PLAIN, EMOJI.replace("CDG", "LHR")), "rwkv6": ("\x1b[31m\nno\n\nidea", EMOJI)})
    said = seed_scene()
    assert "not what" not in said and "not the same: HND to CDG, HND to LHR, none, HND to CDG" in said
    assert "\x1b" not in said and "⏎no⏎⏎idea" in said


def test_a_model_that_is_not_there_is_left_out_in_a_line(worlds):
    worlds({"rwkv7": PathError("bundled: 'rwkv7': rwkv7.pth: missing"), "rwkv6": (PLAIN, EMOJI)})
    said = seed_scene()
    assert "rwkv7 is left out: bundled: 'rwkv7': rwkv7.pth: missing" in said.split("\n")[-1]
    assert "RWKV-6" in said and "in all 2, HND to CDG" in said
    gone = lab.RwkvLabError("not there")
    worlds({"rwkv7": gone, "rwkv6": gone})
    assert seed_scene() == "rwkv7 is left out: not there\nrwkv6 is left out: not there"
