"""A panel that tunes: what comes out is what tune gives, and nothing that a person does leaves it unusable."""

import gc
import json
import subprocess
import sys
import threading
import time
import weakref

import pytest
import torch
from matplotlib.figure import Figure

from rwkvlab.errors import ArgError, DivergedError, FormatError, MismatchError, PathError, SaveError, TuneError
from rwkvlab.model.tuning import tune
from rwkvlab.states.files import load_state
from rwkvlab.states.state import State
from rwkvlab.widgets.tuning import view as tune_view
from rwkvlab.widgets.tuning.data import pasted_examples
from rwkvlab.widgets.tuning.panel import TunePanel

PAIRS = [(f"{i}>", str(i * i)) for i in range(10)]
CURVE = tune_view.curve
SOON = 60.0  # seconds that anything here may take on a loaded machine
HOSTILE = "<img src=x onerror=alert(1)> $\\href{javascript:x}{y}$ \u202e文言文"


@pytest.fixture
def make(tiny, tmp_path, monkeypatch):
    """make(…) -> a TunePanel that is closed at the end of the test; files go into a folder of its own."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tune_view, "curve", lambda steps: Figure(figsize=(1, 1)))  # much quicker; one test has it
    made = []

    def make(*given, **settings):
        made.append(TunePanel(tiny, *given, **settings))
        return made[-1]

    yield make
    for panel in made:
        panel.close()
        assert panel.wait(SOON) and panel.looking.wait(SOON)


def run(panel):
    panel.start()
    assert panel.wait(SOON)
    return panel


def plan_of(panel):
    assert panel.looking.wait(SOON)
    return panel.looking.caption


def endless(panel, steps=3):
    """Start a run that would not end, and wait for its first steps."""
    panel.steps, panel.lr = 10**6, 0.001
    before = panel.job
    panel.start()
    limit = time.monotonic() + SOON
    while panel.job is before or len(panel.job.steps) < steps:
        assert time.monotonic() < limit and panel.work.error is None
        time.sleep(0.005)


def test_the_state_is_that_of_tune_bit_by_bit(make, tiny):
    panel = make(PAIRS, steps=12, lr=0.1, batch=3, seed=2, held_out=0.2, template="world")
    seen = []
    panel.observe(lambda change: seen.append(change["new"]), "state")
    run(panel)
    want = tune(tiny, PAIRS, steps=12, lr=0.1, batch=3, seed=2, held_out=0.2, template="world")
    assert torch.equal(panel.state.wkv, want.wkv) and panel.state.card == want.card
    assert seen == [panel.state] and panel.job.done and len(panel.job.steps) == 12
    assert panel.work.error is None and panel.work.caption.text == f"done; {want.card.recipe}"


def test_the_call_that_it_stands_for_gives_the_same_state(make, tiny):
    import rwkvlab as lab

    panel = run(make(PAIRS, steps=5, lr=0.1, held_out=0.2, seed=1))
    assert panel.tune_code == "lab.tune(model, examples, steps=5, lr=0.1, held_out=0.2, seed=1)"
    again = eval(panel.tune_code, {"lab": lab, "model": tiny, "examples": PAIRS})
    assert torch.equal(again.wkv, panel.state.wkv)
    panel = run(make(text="2+2? => 四\nq => 'a'", steps=3, held_out=0, batch=2))
    again = eval(panel.tune_code, {"lab": lab, "model": tiny})
    assert torch.equal(again.wkv, panel.state.wkv) and again.card.template == "world"
    assert (
        panel.code
        == "lab.widgets.TunePanel(model, text=\"2+2? => 四\\nq => 'a'\", steps=3, lr=0.04, held_out=0.0, batch=2)"
    )


def test_what_a_run_would_read_and_need_is_told_before_it_starts(make, tiny):
    panel = make(PAIRS, held_out=0.2, batch=4)
    assert plan_of(panel).text.startswith("8 examples to train on, 2 held out; ")
    assert "batches of 4 need about " in panel.looking.caption.text and panel.job is None
    before = panel.plan.memory
    panel.batch = 8
    assert "batches of 8" in plan_of(panel).text and panel.plan.memory > before
    panel.batch = 9
    assert plan_of(panel).trouble and "batch: need an integer in [1, 8], got '9'" in panel.looking.caption.text
    panel.batch = None
    assert "batches of 8" in plan_of(panel).text and not panel.looking.caption.trouble


def test_numbers_a_curve_and_answers_are_shown(make, monkeypatch):
    monkeypatch.setattr(tune_view, "curve", CURVE)
    panel = run(make(PAIRS, steps=6, lr=0.1, held_out=0.2))
    view = panel.children[-3]
    last = panel.job.steps[-1]
    assert view.caption.text.startswith(
        f"step 6 of 6 · loss {last.loss:.4f} nats a token · held out {last.held_out:.4f}"
    )
    for word in ("lowest held out", "times normal", "tokens/s"):
        assert word in view.caption.text
    assert view.caption.text in view.picture.alt and "<img " in view.picture.value
    assert "from the state after 6 steps" in view.answers.value and "without a state" in view.answers.value
    assert "held out: the state was not tuned on them" in view.answers.value
    bundle = panel._repr_mimebundle_()
    data = bundle[0] if isinstance(bundle, tuple) else bundle
    assert data["image/png"].startswith("iVBOR") and make(PAIRS).snapshot() is None


def test_stop_ends_a_run_at_once_and_keeps_its_best_state(make):
    panel = make(PAIRS, held_out=0.2)
    endless(panel)
    kept = threading.Event()
    panel.observe(lambda change: kept.set(), "state")
    begin = time.monotonic()
    panel.work.children[0].click()
    assert kept.wait(10) and time.monotonic() - begin < 0.3
    assert panel.wait(SOON) and panel.job.done
    assert torch.equal(panel.state.wkv, panel.job.best.wkv)
    assert panel.work.caption.text.startswith(f"stopped after step {len(panel.job.steps)} of 1000000; kept: tuned: ")
    assert run_again(panel) == 2


def run_again(panel):
    panel.steps = 2
    return len(run(panel).job.steps)


def test_of_a_thousand_clicks_on_start_one_run_is_left(make):
    panel = make(PAIRS)
    button = panel.children[-4].children[0].children[0]
    assert button.description == "Start"
    panel.steps, panel.lr = 10**6, 0.001
    for _ in range(1000):
        button.click()
    limit = time.monotonic() + SOON
    while panel.job is None or not panel.job.steps:
        assert time.monotonic() < limit
        time.sleep(0.005)
    first = panel.job
    for _ in range(100):
        button.click()
    time.sleep(0.2)
    assert panel.job is first and not first.done and button.disabled
    assert sum(thread.name == "tuning" for thread in threading.enumerate()) == 1
    panel.stop()
    assert panel.wait(SOON) and not any(thread.name == "tuning" for thread in threading.enumerate())
    assert not button.disabled


def test_a_run_begins_from_zeros_unless_it_is_to_go_on(make, tiny, random_state):
    panel = run(make(PAIRS, steps=3, held_out=0))
    first = panel.state
    assert not panel.go_on and torch.equal(run(panel).state.wkv, first.wkv)
    panel.go_on = True
    assert "init=" in panel.tune_code
    assert torch.equal(run(panel).state.wkv, tune(tiny, PAIRS, steps=3, init=first).wkv)
    panel.go_on = False
    panel.state = start = random_state("文言文")
    assert panel.go_on, "a state from Python is where the next run begins"
    assert torch.equal(run(panel).state.wkv, tune(tiny, PAIRS, steps=3, init=start).wkv)
    assert panel.go_on and ", from 文言文" in panel.state.card.recipe
    panel.state = None
    assert not panel.go_on and panel.tune_code == "lab.tune(model, examples, steps=3, lr=0.04)"
    with pytest.raises(MismatchError):
        panel.state = State(torch.ones(1, 1, 2, 2))


def test_controls_and_traits_follow_one_another(make):
    panel = make(PAIRS)
    found = {name: widget for widget in every(panel) for name in widget._dom_classes}
    for name, value in (("steps", 7), ("lr", 0.5), ("seed", 3), ("held-out", 0.3), ("template", "g1"), ("go-on", True)):
        found[f"rwkvlab-{name}"].value = value
        assert getattr(panel, name.replace("-", "_")) == value
    found["rwkvlab-batch"].value = 4
    assert panel.batch == 4
    found["rwkvlab-batch"].value = 0
    assert panel.batch is None
    panel.steps = 9
    assert found["rwkvlab-steps"].value == 9
    panel.path = "data.jsonl"
    assert panel.source == found["rwkvlab-source"].value == "file"
    assert (found["rwkvlab-path"].layout.display, found["rwkvlab-text"].layout.display) == (None, "none")
    assert panel.code.startswith("lab.widgets.TunePanel(model, 'data.jsonl', steps=9, lr=0.5, held_out=0.3, seed=3")
    assert panel._codes[0].code == panel.code and panel._codes[1].code == panel.tune_code


def every(widget):
    yield widget
    for child in getattr(widget, "children", ()):
        yield from every(child)


def test_a_jsonl_file_is_read_and_its_mistakes_are_shown(make, tiny, tmp_path):
    path = tmp_path / "问答.jsonl"
    path.write_text("\n".join(json.dumps({"prompt": a, "answer": b}) for a, b in PAIRS), "utf-8")
    panel = make(path, steps=2, held_out=0.2)
    assert panel.source == "file" and "8 examples" in plan_of(panel).text
    assert torch.equal(run(panel).state.wkv, tune(tiny, PAIRS, steps=2, held_out=0.2).wkv)
    before = panel.state
    path.write_text('{"prompt": "a", "answer": "b"}\n{"prompt": <b>}\n', "utf-8")
    run(panel)
    assert isinstance(panel.work.error, FormatError) and "line 2" in panel.work.caption.text
    assert panel.work.caption.trouble and "<b>" not in panel.work.caption.value
    panel.path = "nowhere.jsonl"
    assert plan_of(panel).trouble and "nowhere.jsonl" in panel.looking.caption.text
    assert isinstance(run(panel).work.error, PathError) and panel.state is before
    panel.examples = PAIRS[:4]
    assert run(panel).work.error is None and panel.state is not before


def test_pasted_lines_are_questions_and_answers():
    lines = pasted_examples('东京?\t飞机\n\n a => b => c \n{"text": "x=>y"}\nq→r')
    assert [[m["content"] for m in one["messages"]] if "messages" in one else one for one in lines] == [
        ["东京?", "飞机"],
        ["a", "b => c"],
        {"text": "x=>y"},
        ["q", "r"],
    ]
    for text, where in (("a => b\nno answer", "line 2"), ("=> b", "line 1"), ('{"text": 1,}', "line 1")):
        with pytest.raises(FormatError, match=where):
            pasted_examples(text)


def test_without_examples_nothing_runs_and_it_says_what_to_do(make):
    panel = make()
    assert plan_of(panel).text.startswith("no examples yet") and not panel.looking.caption.trouble
    assert isinstance(run(panel).work.error, ArgError) and "paste lines" in panel.work.caption.text
    assert panel.state is None and panel.job is None


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        ({"steps": 0}, ArgError),
        ({"lr": -1.0}, ArgError),
        ({"held_out": 1.0}, ArgError),
        ({"batch": -1}, ArgError),
        ({"seed": -1}, ArgError),
        ({"examples": [("", "b")]}, TuneError),
        ({"examples": [None, 3]}, TuneError),
        ({"examples": 7}, ArgError),
        ({"examples": [("a", "\ud800")]}, TuneError),
    ],
)
def test_what_cannot_be_run_is_named_and_the_panel_stays_usable(make, settings, kind):
    panel = make(PAIRS, steps=2)
    for name, value in settings.items():
        setattr(panel, name, value)
    assert isinstance(run(panel).work.error, kind) and panel.work.caption.trouble and panel.state is None
    usual = {"examples": PAIRS, "steps": 2, "lr": 0.04, "held_out": 0.1, "batch": None, "seed": 0}
    for name in settings:
        setattr(panel, name, usual[name])
    assert run(panel).work.error is None and panel.state is not None


def test_a_run_that_diverges_is_told_and_the_state_stays(make, tiny):
    panel = run(make(PAIRS, steps=2))
    before, panel.state = panel.state, State(torch.full((2, 2, 16, 16), 1e30), like=tiny)
    run(panel)
    assert isinstance(panel.work.error, DivergedError) and "smaller lr" in panel.work.caption.text
    panel.state = before
    assert run(panel).work.error is None


def test_texts_from_outside_do_nothing(make):
    panel = run(make([(HOSTILE, HOSTILE)] * 4, steps=2, held_out=0.5))
    table = panel.children[-3].answers.value
    assert "<img" not in table and "&lt;img" in table and "文言文" in table and "\u202e" not in table
    assert "tex2jax_ignore" in table
    panel.path = HOSTILE
    assert "<img" not in plan_of(panel).value


def test_a_teacher_prompt_is_distilled(make, tiny):
    panel = run(make([{"prompt": "ab"}, {"prompt": "cd"}], steps=2, held_out=0, teacher="be brief"))
    want = tune(tiny, [{"prompt": "ab"}, {"prompt": "cd"}], steps=2, teacher="be brief")
    assert torch.equal(panel.state.wkv, want.wkv)
    assert "answered by the teacher first" in plan_of(panel).text
    assert "teacher='be brief'" in panel.tune_code and "teacher='be brief'" in panel.code


def test_answers_that_go_wrong_do_not_end_a_run(make, monkeypatch):
    def breaks(*args, **options):
        raise RuntimeError("no <b>memory</b>")

    monkeypatch.setattr("rwkvlab.widgets.tuning.samples.generate_batch", breaks)
    panel = run(make(PAIRS, steps=3))
    assert panel.work.error is None and "no &lt;b&gt;memory" in panel.children[-3].answers.value


def test_a_state_is_saved_under_a_name_that_is_not_taken(make, tiny, tmp_path):
    panel = make(PAIRS, steps=2)
    box = panel._save
    assert box.button.disabled
    run(panel)
    assert not box.button.disabled and box.file.value == "rwkv-x070-tuned.safetensors"
    for name in (box.file.value, "a.pth", "b.state"):
        box.file.value = name
        box.button.click()
        assert box.work.wait(SOON) and box.work.error is None and f"/{name}, " in box.work.caption.text
        again = load_state(tmp_path / name, tiny)
        assert torch.allclose(again.wkv, panel.state.wkv, atol=1e-3)
    written = (tmp_path / "b.state").read_bytes()
    box.button.click()
    assert box.work.wait(SOON) and isinstance(box.work.error, SaveError) and "b.state" in box.work.caption.text
    assert (tmp_path / "b.state").read_bytes() == written
    for wrong in ("", "c.txt", "nowhere/c.pth"):
        box.file.value = wrong
        box.button.click()
        assert box.work.wait(SOON) and box.work.error is not None and box.work.caption.trouble
    box.file.value = ""
    run(panel)
    assert box.file.value == "rwkv-x070-tuned-2.safetensors"


def test_two_panels_tune_side_by_side(make, tiny):
    one, two = make(PAIRS, steps=8, lr=0.1), make(PAIRS, steps=8, lr=0.1, seed=1)
    one.start()
    two.start()
    assert one.wait(SOON) and two.wait(SOON)
    for panel, seed in ((one, 0), (two, 1)):
        assert torch.equal(panel.state.wkv, tune(tiny, PAIRS, steps=8, lr=0.1, held_out=0.1, seed=seed).wkv)


def test_what_is_no_setting_no_model_and_no_data_is_refused(tiny):
    with pytest.raises(TypeError, match="'rate'"):
        TunePanel(tiny, PAIRS, rate=3)
    with pytest.raises(ArgError, match="need a Model"):
        TunePanel("model.pth")
    for wrong in (3, b"a", {"prompt": "a"}, iter(PAIRS)):
        with pytest.raises(ArgError, match="need a list of examples"):
            TunePanel(tiny, wrong)


def test_a_panel_that_is_closed_lets_go_of_its_run(make):
    panel = make(PAIRS)
    endless(panel)
    job = weakref.ref(panel.job)
    panel.close()
    assert panel.wait(SOON) and panel.job.done
    panel.job = None
    gc.collect()
    assert job() is None


def test_a_program_that_ends_leaves_nothing_running():
    code = (
        "import time, rwkvlab as lab\n"
        "from rwkvlab.widgets.tuning.panel import TunePanel\n"
        "model, _ = lab.bundled('micro')\n"
        "panel = TunePanel(model, [('abc>', 'cba'), ('xy>', 'yx')] * 4, steps=10**6)\n"
        "panel.start()\n"
        "while panel.job is None or len(panel.job.steps) < 3:\n"
        "    time.sleep(0.01)\n"
    )
    begin = time.monotonic()
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert (out.stdout, out.stderr) == ("", "") and time.monotonic() - begin < 90
