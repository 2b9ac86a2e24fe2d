from concurrent.futures import ThreadPoolExecutor

import pytest

from rwkvlab.errors import ArgError, Cancelled
from rwkvlab.measure import experiment
from rwkvlab.measure.experiment import Experiment
from rwkvlab.tasks.task import Task

TASKS = [
    Task("one", ["ab", "c", "def"], ["x", "yz", "w"]),
    Task("two", ["ab", "def"], ["q", "w"]),
    Task("chat", ["hello"], ["there"], template="world"),
]


@pytest.fixture
def states(random_state):
    return {"zero": None, "a": random_state("a"), "文": random_state("文", 1)}


def test_a_batch_of_everything_is_one_by_one_generation_and_scoring(tiny, states):
    rows = Experiment(tiny, states, TASKS, max_tokens=5).run()
    assert list(rows.columns) == ["task", "state", "example", "prompt", "answer", "said", "right", "logprob"]
    assert len(rows) == 3 * 6 and rows["right"].dtype == bool
    for row in rows.itertuples():
        options = {"temperature": 0.0, "presence": 0.0, "frequency": 0.0, "max_tokens": 5}
        template = "world" if row.task == "chat" else "raw"
        alone = tiny.chat(row.prompt, states[row.state], template=template, **options)
        assert row.said == alone.text
        prompt = "User: hello\n\nAssistant:" if row.task == "chat" else row.prompt
        answer = " there" if row.task == "chat" else row.answer
        one = tiny.score(prompt, answer, states[row.state])["logprob"][0]
        assert row.logprob == pytest.approx(one, abs=1e-3)


def test_an_answer_is_right_when_it_is_the_whole_answer(tiny, states):
    said = tiny.generate("ab", states["a"], temperature=0, max_tokens=3).text
    tasks = [Task("right", ["ab"], [said]), Task("part", ["ab"], [said[:2]])]
    rows = Experiment(tiny, states, tasks, max_tokens=3).run()
    assert rows[rows.state == "a"].set_index("task")["right"].to_dict() == {"right": True, "part": False}


def test_batches_of_any_size_and_an_executor_give_the_same(tiny, states, monkeypatch):
    whole = Experiment(tiny, states, TASKS).run()
    with ThreadPoolExecutor(2) as pool:
        assert Experiment(tiny, states, TASKS).run(pool).equals(whole)
    monkeypatch.setattr(experiment, "ROWS", 2)
    small = Experiment(tiny, states, TASKS).run()
    assert small.drop(columns="logprob").equals(whole.drop(columns="logprob"))
    assert small["logprob"].to_numpy() == pytest.approx(whole["logprob"].to_numpy(), abs=1e-3)


def test_a_question_that_two_tasks_ask_is_answered_once(tiny, states, monkeypatch):
    asked = []
    real = experiment.chat_batch

    def counted(model, questions, *args, **options):
        asked.extend(questions)
        return real(model, questions, *args, **options)

    monkeypatch.setattr(experiment, "chat_batch", counted)
    Experiment(tiny, states, TASKS[:2]).run()
    assert sorted(asked) == sorted(["ab", "c", "def"] * 3)


def test_mistakes_are_named(tiny, states):
    with pytest.raises(ArgError, match="tasks: empty"):
        Experiment(tiny, states, [])
    with pytest.raises(ArgError, match="need a Task"):
        Experiment(tiny, states, ["sort"])
    with pytest.raises(ArgError, match="max_tokens"):
        Experiment(tiny, states, TASKS, max_tokens=0)


def test_an_interrupt_while_answers_are_scored_is_a_cancel(tiny, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr("rwkvlab.measure.experiment.score", interrupted)
    with pytest.raises(Cancelled, match="run it again"):
        Experiment(tiny, [None], Task("a", ["ab"], ["b"])).run()
