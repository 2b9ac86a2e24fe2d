"""The playground from Python: what it answers, stops, switches, refuses, keeps, and says in code."""

import inspect
import re
import threading
import time
import warnings
from types import SimpleNamespace

import pytest
import torch

from rwkvlab.errors import ArgError, LoadError, MismatchError, PromptError, RwkvLabError
from rwkvlab.measure.comparing.compare import compare
from rwkvlab.model.chat import Conversation
from rwkvlab.states.card import StateCard
from rwkvlab.states.files import save_state
from rwkvlab.states.shelf import Shelf
from rwkvlab.states.state import State
from rwkvlab.tasks.templates import Template
from rwkvlab.widgets.playing.playground import Playground

SOON = 60.0  # seconds that anything here may take on a loaded machine
SHORT = {"max_tokens": 12, "top_p": 0.9}
LONG = {"max_tokens": 1_000_000, "ban": [0], "stop": ["\x00never"]}
EVIL = '<img src=x onerror=alert(1)> $x$ "quoted"'


@pytest.fixture
def states(random_state):
    return {name: random_state(name, seed) for seed, name in enumerate(("文言文", "emoji", EVIL))}


@pytest.fixture
def make(tiny):
    made = []

    def make_(states, **options):
        made.append(Playground(tiny, states, **{"sampling": SHORT} | options))
        return made[-1]

    yield make_
    for one in made:
        one.close()
        assert one.wait(SOON)


def asked(playground, question=None):
    assert playground.ask(question).wait(SOON)
    return playground


def until(condition, patience=SOON):
    end = time.monotonic() + patience
    while not condition():
        assert time.monotonic() < end, "it never came to that"
        time.sleep(0.002)


def said(playground):
    return playground._work.caption.text


def control(playground, name):
    return playground._controls._boxes[name]


def test_the_answers_are_those_of_compare_with_the_same_settings(make, states, tiny):
    playground = make(states, columns=("zero", "emoji", "文言文"), seed=7, question="东京到巴黎怎么走?")
    asked(playground)
    arms = {"zero": None, "emoji": states["emoji"], "文言文": states["文言文"]}
    same = compare(tiny, ["东京到巴黎怎么走?"], arms, seed=7, kl=True, **SHORT)
    result = playground.result
    assert result.table.equals(same.table) and result.written.equals(same.written)
    assert result.tokens.drop(columns="kl").equals(same.tokens.drop(columns="kl"))
    assert abs(result.tokens["kl"] - same.tokens["kl"]).max() < 1e-6 < result.tokens["kl"].max()
    assert (result.template, result.settings, result.baseline) == (same.template, same.settings, "zero")
    assert result.starts.equals(same.starts)
    assert playground.error is None and said(playground) == "answered: 3 columns, seed 7"
    assert "<mark>" in playground._view.value and 'class="k' in playground._view.value


def test_text_streams_into_every_column_at_once_and_seldom_enough(make, states):
    playground, seen = make(states, columns=("zero", "emoji"), kl=False, sampling={"max_tokens": 300, "ban": [0]}), []
    playground._view.observe(lambda change: seen.append((time.monotonic(), change["new"])), "value")
    asked(playground, "x")
    cells = [re.findall(r'rwkvlab-writes">(.*?)</span>', value, re.S) for _, value in seen[:-1]]
    sizes = [[len(one) for one in two] for two in cells if len(two) == 2]
    assert sizes == sorted(sizes) and any(all(size) for size in sizes), "both grow, none waits for the other"
    times = [at for at, _ in seen]
    assert all(times[at + 21] - times[at] > 1.0 for at in range(1, len(times) - 22)), "at most 20 a second"


def fastest_stop(playground, stop):
    """Ask, stop while every column writes, and return how long that took: the best of three, on a busy machine."""
    found = []
    while len(found) < 3 and min(found, default=1.0) >= 0.3:
        playground.ask()
        until(lambda: 'class="rwkvlab-writes"' in playground._view.value and 'writes"></' not in playground._view.value)
        start = time.monotonic()
        stop()
        assert playground.wait(SOON)
        found.append(time.monotonic() - start)
    return min(found)


def test_stop_ends_it_soon_and_keeps_what_was_written(make, states):
    playground = make(states, columns=("zero", "emoji"), sampling=LONG, question="x")
    assert fastest_stop(playground, playground._work.children[0].click) < 0.3
    assert set(playground.result.table["finish"]) == {"cancelled"}
    assert playground.result.table["tokens"].min() > 0
    assert playground._view.value.count("(stopped)") == 2
    assert said(playground).startswith("stopped: 2 columns")
    playground.sampling = SHORT
    assert set(asked(playground).result.table["finish"]) <= {"length", "end", "stop"}


def test_reading_for_kl_can_be_stopped_and_the_answers_stay(make, states, monkeypatch):
    import rwkvlab.measure.comparing.tokens as module

    playground, reading, along = make(states, columns=("zero", "emoji")), threading.Event(), module.along

    def slow(*arguments, tick, **options):
        reading.set()
        while True:
            tick(1, 10)
            time.sleep(0.01)

    monkeypatch.setattr(module, "along", slow)
    playground.ask("x")
    assert reading.wait(SOON)
    until(lambda: "reading again for KL" in said(playground))
    assert "<mark>" in playground._view.value and 'class="k' not in playground._view.value
    playground.stop()
    assert playground.wait(SOON) and playground.error is None
    assert said(playground).endswith("stopped reading again for KL, the answers are complete")
    assert playground.result is not None and "tokens" not in vars(playground.result)
    monkeypatch.setattr(module, "along", along)
    assert len(playground.result.tokens)


def test_without_kl_nothing_is_read_again(make, states, monkeypatch):
    import rwkvlab.measure.comparing.tokens as module

    monkeypatch.setattr(module, "along", lambda *_, **__: pytest.fail("was read"))
    playground = asked(make(states, kl=False), "x")
    assert playground.error is None and "<mark>" in playground._view.value and "marked" in playground._view.value


def test_a_chat_goes_on_in_every_column_as_a_conversation_does(make, states, tiny):
    playground = make(states, columns=("zero", "emoji"), seed=3, chat=True)
    talks = [Conversation(tiny, state) for state in (None, states["emoji"])]
    for question in ("a", "b", "c"):
        texts = list(asked(playground, question).result.table["text"])
        assert texts == [talk.ask(question, seed=3, **SHORT).text for talk in talks]
    assert len(playground.history) == 3 and "3 questions in this chat" in said(playground)
    assert playground.result.tokens["kl"].max() > 0
    playground.chat = False
    alone = asked(playground, "c").result.table["text"]
    assert list(alone) == [tiny.chat("c", state, seed=3, **SHORT).text for state in (None, states["emoji"])]


def test_a_state_switched_in_mid_chat_is_what_switch_gives(make, states, tiny):
    playground = make(states, columns=("zero", "emoji"), chat=True, kl=False)
    zero, other = Conversation(tiny, None), Conversation(tiny, states["emoji"])
    asked(playground, "a")
    playground.columns = ("zero", "文言文")
    assert "column 2: '文言文'" in playground._note.text and "1 question of this chat" in playground._note.text
    for talk in (zero, other):
        talk.ask("a", seed=0, **SHORT)
    other.switch(states["文言文"])
    texts = list(asked(playground, "b").result.table["text"])
    assert texts == [talk.ask("b", seed=0, **SHORT).text for talk in (zero, other)]
    assert playground._note.text == ""
    assert "switched from &#x27;emoji&#x27;: the conversation was read again" in playground._view.value
    # a column that is added reads the baseline's turns; one that is moved keeps its own
    added = Conversation(tiny, states["emoji"])
    added.turns = zero.turns
    added.switch(states["emoji"])
    playground.columns = ("文言文", "zero", "emoji")
    texts = list(asked(playground, "c").result.table["text"])
    assert texts == [talk.ask("c", seed=0, **SHORT).text for talk in (other, zero, added)]
    assert playground.result.baseline == "文言文"


def test_a_stopped_turn_of_a_chat_is_kept_as_far_as_it_went(make, states, tiny):
    playground = make(states, columns=("zero", "emoji"), sampling=LONG, chat=True).ask("a")
    until(lambda: playground._view.value.count("writes") and 'writes"></span>' not in playground._view.value)
    playground.stop()
    assert playground.wait(SOON)
    first = list(playground.result.table["tokens"])
    playground.sampling = SHORT
    asked(playground, "b")
    assert len(playground._turns) == 2
    talk = playground._turns[-1].talks[0]
    assert len(talk.turns[0].tokens) == first[0] + len(tiny.encode("User: a\n\nAssistant:"))


def test_mistakes_are_shown_and_the_playground_goes_on(make, states):
    playground = make(states, columns=("zero", "emoji"))
    for question, kind in (("", PromptError), ("  \n", PromptError)):
        asked(playground, question)
        assert isinstance(playground.error, kind) and playground._work.caption.trouble
        assert "question: empty" in said(playground)
    for name, value in (
        *(("template", bad) for bad in ("chatml", None, 7, "<b>")),
        *(("columns", bad) for bad in ((), ("nobody",), ("zero", "zero"), (None,), 3, ("zero",) * 17)),
        *(("seed", bad) for bad in (-1, 1.5, "x", 2**60, True)),
        *(("sampling", bad) for bad in ({"top_p": 2}, {"beams": 3}, [1], {"temperature": -1}, {"max_tokens": -1})),
        *(("question", bad) for bad in (None, 7, b"x")),
    ):
        before = getattr(playground, name)
        with pytest.raises(ArgError, match=name if name != "sampling" else "."):
            setattr(playground, name, value)
        assert getattr(playground, name) == before
    asked(playground, "x")
    assert playground.error is None and playground.result is not None


def test_what_a_person_sets_wrongly_is_said_and_nothing_changes(make, states):
    playground = make(states, columns=("zero", "emoji"))
    second = playground._choice._menus[1]
    second.value = "zero"
    assert playground.columns == ("zero", "emoji") and second.value == "emoji"
    assert playground._note.trouble and "stands in column 1 already" in playground._note.text
    second.value = "文言文"
    assert playground.columns == ("zero", "文言文") and not playground._note.trouble


def test_a_state_that_does_not_fit_is_left_out_with_the_reason(make, states, tiny, tmp_path):
    playground = make({"big": State(torch.ones(2, 3, 16, 16)), **states})
    assert "big" not in playground.columns and "1 state is left out" in playground._note.text
    with pytest.raises(ArgError, match="'big' cannot be used: "):
        playground.columns = ("zero", "big")
    # a file that broke after it was listed
    save_state(states["emoji"], tmp_path / "emoji.pth")
    playground = make(Shelf(tmp_path, tiny))
    (tmp_path / "emoji.pth").write_bytes(b"broken")
    asked(playground, "x")
    assert isinstance(playground.error, (LoadError, RwkvLabError)) and playground._work.caption.trouble
    playground.columns = ("zero",)
    assert asked(playground).error is None


def test_hostile_names_questions_and_answers_are_shown_as_text(make, states):
    playground = make(states, columns=("zero", EVIL), template=Template("<b>t</b>", "{question}"))
    asked(playground, f"{EVIL} \u202e\ud800")
    html = playground._view.value
    assert "<img" not in html and "&lt;img" in html and "\u202e" not in html and "<b>t" not in html
    playground.new_chat()
    assert "<img" not in playground._earlier._view.value
    compile(playground.code, "code", "exec")


def test_of_a_thousand_clicks_one_job_is_left(make, states):
    playground = make(states, columns=("zero", "emoji"), sampling=LONG)
    for number in range(1000):
        playground._box._heard(None, {"ask": f"question {number}"}, [])
    assert sum(one.name == "rwkvlab-later" for one in threading.enumerate()) == 1
    until(lambda: "question 999" in playground._view.value and 'writes"></span>' not in playground._view.value)
    assert playground.history == () and playground.result is None, "what made way is not kept"
    playground.stop()
    assert playground.wait(SOON)
    assert [one.table["prompt"].iloc[0] for one in playground.history] == ["question 999"]
    for content in ({}, {"ask": 7}, None, "x"):
        playground._box._heard(None, content, [])
    assert not playground.running


def test_what_is_set_from_python_is_shown_and_what_is_typed_is_read(make, states):
    playground = make(states, columns=("zero", "emoji"))
    seen = []
    playground.observe(
        lambda change: seen.append(change["name"]), ["question", "template", "seed", "sampling", "result"]
    )
    assert [control(playground, name).value for name in ("template", "seed", "max_tokens")] == ["world", 0, 12]
    playground.template, playground.seed, playground.question = "raw", 5, "文"
    playground.sampling = {"temperature": 0.0, "max_tokens": 5000}
    shown = [control(playground, name).value for name in ("template", "seed", "temperature", "top_p", "max_tokens")]
    assert shown == ["raw", 5, 0.0, 0.2, 5000] and playground._box.value == "文"
    control(playground, "max_tokens").value = 9
    control(playground, "seed").value = 6
    control(playground, "template").value = "auto"
    playground._box.value = "字"
    assert (playground.sampling["max_tokens"], playground.sampling["temperature"]) == (9, 0.0)
    assert (playground.seed, playground.template, playground.question) == (6, "auto", "字")
    asked(playground)
    assert seen[-1] == "result" and seen.count("result") == 1
    assert playground.result.settings["max_tokens"] == 9 and playground.result.settings["seed"] == 6


def test_the_buttons_for_columns_add_and_take_away(make, states):
    playground = make(states, columns=("zero",))
    more, less = playground._choice._more, playground._choice._less
    assert less.disabled
    more.click()
    assert playground.columns == ("zero", "文言文")
    more.click()
    more.click()
    assert len(playground.columns) == 4 and more.disabled
    less.click()
    assert len(playground.columns) == 3 and len(playground._choice.children[0].children) == 5


def test_auto_takes_the_template_of_a_card_and_another_one_is_told_of(make, states):
    tuned = states["emoji"].replace(card=StateCard(name="emoji", template="raw"))
    playground = make({"emoji": tuned}, template="auto")
    assert asked(playground, "x").result.template == "raw"
    playground.template = "world"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asked(playground, "x")
    assert playground.error is None and playground.result.template == "world"
    assert "was tuned for the template" in playground._view.value


@pytest.mark.parametrize("kind", ["shelf", "folder", "list", "one", "none", "mapping"])
def test_states_come_from_a_shelf_a_folder_a_list_or_alone(kind, make, states, tiny, tmp_path):
    del states[EVIL]
    for name, state in states.items():
        save_state(state, tmp_path / f"{name}.pth")
    given = {"shelf": Shelf(tmp_path), "folder": tmp_path, "list": list(states.values()), "one": states["emoji"]}
    given |= {"none": None, "mapping": {"off": None, **states}}
    playground = make(given[kind])
    names = {"one": ("zero", "emoji"), "none": ("zero",), "mapping": ("off", "文言文", "emoji")}
    assert set(playground.columns) == set(names.get(kind, ("zero", "文言文", "emoji")))
    assert playground.columns[0] == ("off" if kind == "mapping" else "zero")
    asked(playground, "x")
    assert playground.error is None and len(playground.result.table) == len(playground.columns)
    compile(playground.code, "code", "exec")


def test_the_code_makes_the_same_view(make, states, tiny, monkeypatch):
    def rebuilt(playground):
        made = []

        def build(*arguments, **options):
            made.append(make(*arguments[1:], **options))
            return made[-1]

        compared = []
        lab = SimpleNamespace(widgets=SimpleNamespace(Playground=build), Template=Template)
        lab.compare = lambda *arguments, **options: compared.append(compare(*arguments, **options))
        names = {"lab": lab, "model": tiny, "states": states}
        exec(playground.code, names)
        assert made[-1].wait(SOON)
        comment = playground.code.splitlines()[-1]
        if comment.startswith("# lab.compare"):
            exec(comment[2:], names)
        return made[-1], compared

    mine = Template("mine", "Q: {question}\nA:", stop=("\n",))
    playground = make(states, columns=("emoji", EVIL), seed=4, template=mine, kl=False)
    empty, _ = rebuilt(playground)
    assert (empty.columns, empty.seed, empty.template, empty.kl) == (playground.columns, 4, mine, False)
    asked(playground, "怎么\n走?")
    again, compared = rebuilt(playground)
    assert again._view.value == playground._view.value
    assert compared[0].table.equals(playground.result.table)
    playground.chat, playground.kl = True, True
    asked(playground, "b")
    playground.columns = ("emoji", "文言文", "zero")
    asked(playground, "c")
    again, _ = rebuilt(playground)
    assert again._view.value == playground._view.value and len(again.history) == 3


def test_earlier_questions_stay_with_their_settings(make, states):
    playground = make(states, columns=("zero", "emoji"), seed=1)
    asked(playground, "first")
    playground.seed, playground.columns = 2, ("zero", "文言文")
    asked(playground, "second")
    menu = playground._earlier._menu
    assert [title for title, _ in menu.options] == ["1: first"]
    assert "seed 1" in playground._earlier._view.value and "first" in playground._earlier._view.value
    assert [one.settings["seed"] for one in playground.history] == [1, 2]
    playground._earlier._again()
    assert (playground.question, playground.seed, playground.columns) == ("first", 1, ("zero", "emoji"))
    for _ in range(20):
        playground.new_chat()
        asked(playground, "more")
    assert len(playground.history) == 21 and len(menu.options) == 20 and menu.options[0][0] == "21: more"


def test_the_answers_are_saved_as_a_page_and_as_a_table(make, states, monkeypatch):
    playground, sent = make(states, columns=("zero", "emoji"), kl=False), []
    monkeypatch.setattr(playground._box, "send", lambda content, buffers: sent.append((content, buffers)))
    playground.save("html")
    assert playground._note.trouble and not sent
    asked(playground, "怎么走?")
    for button in playground._saves:
        button.click()
        assert playground.wait(SOON) and playground.error is None
    (page, [html]), (table, [csv]) = sent
    assert page == {"file": "answers.html", "type": "text/html"} and b"<!DOCTYPE html>" in html
    assert table == {"file": "answers.csv", "type": "text/csv"} and "怎么走" in csv.decode("utf-8-sig")
    assert 'class="k' in playground._view.value, "the page needs KL, so that it is shown too"


def test_a_saved_notebook_keeps_the_answers_as_text(make, states):
    playground = make(states)
    assert "text/html" not in playground._repr_mimebundle_()
    asked(playground, "怎么走?")
    data = playground._repr_mimebundle_()
    assert "怎么走?" in data["text/html"] and "application/vnd.jupyter.widget-view+json" in data


def test_a_watcher_of_the_result_sees_it_whole(make, states):
    playground, seen = make(states, columns=("zero", "emoji")), []
    playground.observe(lambda change: seen.append("tokens" in vars(change["new"])), "result")
    asked(playground, "x")
    asked(playground, "x")
    assert seen == [True, True]


def test_every_default_of_sampling_is_that_of_compare():
    from rwkvlab.widgets.playing.inputs import SAMPLING

    usual = inspect.signature(compare).parameters
    assert {name: usual[name].default for name in SAMPLING} == SAMPLING
    assert usual["template"].default == inspect.signature(Playground).parameters["template"].default


def test_a_model_of_the_package_answers_in_emoji():
    from rwkvlab.bundled import bundled

    model, shelf = bundled("rwkv7")
    emoji = next(name for name in shelf if "emoji" in name)
    playground = asked(Playground(model, shelf, columns=("zero", emoji)), "东京到巴黎怎么走?")
    zero, other = playground.result.table["text"]
    assert "东京" in zero and "✈" in other and "✈" not in zero
    assert f"shelf[{emoji!r}]" in playground.code
    playground.sampling = {**LONG, "presence": 2.0}
    assert fastest_stop(playground, playground.stop) < 0.3
    assert "(stopped)" in playground._view.value and playground.result.table["tokens"].min() > 0


def test_a_state_of_another_base_is_refused(make, states, tiny):
    other = states["emoji"].replace(card=StateCard(name="x", base="f" * 64))
    with pytest.raises((MismatchError, ArgError)):
        make({"x": other}, columns=("zero", "x"))
