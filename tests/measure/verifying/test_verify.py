"""`verify` on the bundled model, whose states are known to work, and on files that are not what they should be."""

import json

import pytest
import torch

import rwkvlab as lab
from rwkvlab.bundled import bundled
from rwkvlab.errors import ArgError, Cancelled, MismatchError, NonFiniteError, PromptError
from rwkvlab.measure.verifying import verify as module
from rwkvlab.measure.verifying.texts import TEXTS
from rwkvlab.measure.verifying.verify import verify
from rwkvlab.states.controls import random_like, transposed
from rwkvlab.tasks.builtin import micro_tasks

NAMES = ("copy", "reverse", "sort", "next", "cipher", "rotate")


@pytest.fixture(scope="module")
def micro():
    return bundled()


def texts_of(name, n=24, seed=0):
    """Held-out queries of one of the micro model's tasks with their answers."""
    task = next(task for task in micro_tasks(n, seed) if task.name == name)
    return list(zip(task.prompts, task.answers, strict=True))


def finding(report, start):
    return next(text for text in report.findings if text.startswith(start))


@pytest.mark.parametrize("name", NAMES[1::2])
def test_a_bundled_state_helps_and_its_orientation_is_told_either_way(micro, name):
    model, shelf = micro
    right = verify(model, shelf[name], texts=texts_of(name))
    assert right.ok and right.orientation == "as stored"
    assert finding(right, "effect: the state helps by ") and finding(right, "orientation: right as it is")
    turned = verify(model, transposed(shelf[name]), texts=texts_of(name))
    assert not turned.ok and turned.orientation == "transposed"
    assert finding(turned, "effect: ").startswith("effect: none beyond chance") or "hurts" in finding(
        turned, "effect: "
    )
    # the two are one table with two rows changed over
    for start, other in (("as stored", "transposed"), ("zero", "zero")):
        one, two = (
            report.table.set_index("start").loc[row, "loss"] for report, row in ((right, start), (turned, other))
        )
        assert one == pytest.approx(two, abs=1e-6)


@pytest.mark.long
def test_no_orientation_is_ever_told_wrongly(micro):
    model, shelf = micro
    told = []
    for n in (8, 16, 24):
        for seed in range(3):
            for name in NAMES:
                for state, want in ((shelf[name], "as stored"), (transposed(shelf[name]), "transposed")):
                    got = verify(model, state, texts=texts_of(name, n, seed), official=False).orientation
                    assert got in (want, "undecided"), (name, n, seed, want)
                    told.append(got == want)
    assert sum(told) >= 0.9 * len(told)


def test_a_file_the_other_way_round_is_found_and_how_to_load_it(micro, tmp_path):
    model, shelf = micro
    path = tmp_path / "sort.pth"
    lab.save_state(transposed(shelf["sort"]), path)
    report = verify(model, path, texts=texts_of("sort"), template="raw")
    assert "load it with orientation='KV'" in finding(report, "orientation: it is the other way round")
    assert "which model it was made on" in finding(report, "base: ")
    assert verify(model, path, texts=texts_of("sort"), template="raw", orientation="KV").ok
    lab.save_state(shelf["sort"], path)
    report = verify(model, path, texts=texts_of("sort"), template="raw", orientation="KV")
    assert "load it with orientation='VK'" in finding(report, "orientation: it is the other way round")


def test_a_random_state_does_nothing_beyond_chance(micro):
    model, shelf = micro
    for seed in (100, 101):
        report = verify(model, random_like(shelf["next"], seed), texts=texts_of("next"))
        assert report.orientation == "undecided" and not report.ok
        assert not finding(report, "effect: ").startswith("effect: the state helps")


def test_the_state_of_another_task_hurts_and_its_orientation_stays_open(micro):
    model, shelf = micro
    for state in (shelf["copy"], transposed(shelf["copy"])):
        report = verify(model, state, texts=texts_of("sort"))
        assert report.orientation == "undecided" and not report.ok
        assert "give texts= like those it was tuned on" in finding(report, "orientation: ")
    assert finding(verify(model, shelf["copy"], texts=texts_of("sort")), "effect: the state hurts by ")


def test_zeros_and_few_texts_decide_nothing(micro):
    model, shelf = micro
    report = verify(model, model.zero(), texts=texts_of("sort"))
    assert finding(report, "effect: the state changes nothing") and report.orientation == "undecided"
    for n in (1, 7):
        few = verify(model, shelf["sort"], texts=texts_of("sort", n))
        assert few.orientation == "undecided" and not few.ok and "give at least 8 texts" in finding(few, "effect: ")


def test_copies_of_a_text_count_once(micro):
    model, shelf = micro
    one, other = texts_of("sort", 2)
    report = verify(model, shelf["sort"], texts=[one] * 5 + [other, list(other), one], official=False)
    assert report.about["texts"].startswith("8 given (6 repeat others and are left out)")
    assert report.undecided and report.orientation == "undecided" and "texts that differ, there are 2" in repr(report)
    single = verify(model, shelf["sort"], texts=[one] * 8, official=False)
    assert "(one text: no standard error)" in repr(single) and "nan" not in repr(single)
    assert report.table["tokens"].max() == sum(len(model.encode(answer)) for _, answer in (one, other))


def test_open_is_told_from_bad(micro):
    model, shelf = micro
    good, bad = (
        verify(model, shelf["sort"], texts=texts_of("sort")),
        verify(model, shelf["copy"], texts=texts_of("sort")),
    )
    few = verify(model, shelf["sort"], texts=texts_of("sort", 3))
    assert [(r.ok, r.undecided) for r in (good, bad, few)] == [(True, False), (False, False), (False, True)]
    assert [repr(r).splitlines()[-1].split(":")[0] for r in (good, bad, few)] == ["ok", "not ok", "undecided"]
    assert "\n? effect: " in repr(few) and few.to_dict()["undecided"] is True and set(few.doubts) <= set(few.problems)


@pytest.mark.parametrize(
    ("at", "words"), [(0, "weights are broken"), (1, "from the state"), (3, "control 'random 0'.*too large")]
)
def test_a_start_whose_logits_are_not_finite_is_named(tiny, random_state, monkeypatch, at, words):
    run = type(tiny).run

    def broken(self, tokens, flow, logits="last"):
        out = run(self, tokens, flow, logits)
        if out is not None:
            out[at] = float("nan")
        return out

    monkeypatch.setattr(type(tiny), "run", broken)
    with pytest.raises(NonFiniteError, match=words):
        verify(tiny, random_state("s"), texts=["some text"], official=False)


def test_a_model_and_a_state_given_the_wrong_way_round_are_to_be_swapped(tiny_file, random_state, tmp_path):
    path = lab.save_state(random_state("s"), tmp_path / "s.pth")
    with pytest.raises(MismatchError, match=rf"'s\.pth': this is a tuned state.*{tiny_file.name}' is one: swap them"):
        verify(path, tiny_file, tokenizer="bytes")
    with pytest.raises(MismatchError, match="open it with load_state"):
        verify(path, path, tokenizer="bytes")


def test_the_state_in_a_merged_checkpoint_is_not_silently_left_out(tiny_file, random_state, tmp_path):
    weights, state = torch.load(tiny_file), random_state("s")
    assert not any(text.startswith("state: ") for text in verify(tiny_file, tokenizer="bytes", official=False).findings)
    path = tmp_path / "merged.pth"
    torch.save(weights | {f"blocks.{i}.att.time_state": part for i, part in enumerate(state.wkv)}, path)
    with pytest.warns(UserWarning, match="not mounted"):
        report = verify(path, tokenizer="bytes", official=False)
    assert report.ok and "was not checked: give it as state= too" in finding(report, "state: ")


def test_our_own_texts_tell_nothing_of_states_that_were_tuned_on_others(micro):
    model, shelf = micro
    for state in (shelf["rotate"], transposed(shelf["rotate"])):
        assert verify(model, state).orientation == "undecided"


def test_losses_are_those_of_score_and_kl_that_of_the_logits(tiny, random_state):
    state, texts = (
        random_state("s"),
        [
            ("hi there", "yes"),
            ("a", "longer answer\n\nthan that"),
            "plain text, scored raw",
            {"prompt": "a>", "answer": "b"},
        ],
    )
    table = verify(tiny, state, texts=texts, template="world").table.set_index("start")
    form = lab.Template("w", "User: {question}\n\nAssistant:", lead=" ", separator="\n\n")
    pairs = [form.example(*text) for text in texts[:2]] + [(texts[2][0], texts[2][1:]), ("a>", "b")]
    starts = {
        "zero": tiny.zero(),
        "as stored": state,
        "transposed": transposed(state),
        "random 5": random_like(state, 5),
    }
    scored = tiny.score([prompt for prompt, _ in pairs], [answer for _, answer in pairs], starts)
    losses = -scored["logprob_per_token"].groupby(scored["state"], sort=False).mean()
    changes = -scored.pivot(index="prompt", columns="state", values="logprob_per_token")
    for start in starts:
        assert table.loc[start, "loss"] == pytest.approx(losses[start], abs=1e-5)
        change = changes[start] - changes["zero"]
        assert table.loc[start, "change"] == pytest.approx(change.mean(), abs=1e-5)
        assert table.loc[start, "change_se"] == pytest.approx(change.sem(), abs=1e-5)
        kls = []
        for prompt, answer in pairs:
            ids, head = tiny.encode(prompt) + tiny.encode(answer), len(tiny.encode(prompt))
            p, q = (tiny.forward(ids[:-1], s).logits[0, head - 1 :].log_softmax(-1) for s in (None, starts[start]))
            kls.append(float((p.exp() * (p - q)).sum(-1).mean()))
        assert table.loc[start, "kl"] == pytest.approx(sum(kls) / len(kls), abs=1e-5)
    assert (table["tokens"] == sum(len(tiny.encode(answer)) for _, answer in pairs)).all()


def test_long_texts_are_judged_in_pieces(tiny, random_state, monkeypatch):
    texts = ["The quick brown fox jumps over the lazy dog. " * 3, ("ask", "answer")]
    whole = verify(tiny, random_state(), texts=texts).table
    monkeypatch.setattr("rwkvlab.measure.verifying.effects.LOGITS", 9 * 257 * 5)
    pieces = verify(tiny, random_state(), texts=texts).table
    assert (whole["loss"] - pieces["loss"]).abs().max() < 1e-5 and (whole["kl"] - pieces["kl"]).abs().max() < 1e-5


def test_weights_and_state_are_checked_in_one_report_that_names_no_folder(tiny_file, random_state, tmp_path):
    name = "<b>x\x1b[31m\u202e.pth"
    lab.save_state(random_state("s"), tmp_path / "plain.pth")
    (tmp_path / "plain.pth").rename(tmp_path / name)
    report = verify(tiny_file, tmp_path / name, tokenizer="bytes", texts=[("a", "b")] * 8)
    assert report.logits["agrees"].all() and report.logits["start"].tolist() == ["zeros", "the state"]
    assert finding(report, "logits: agree with those of rwkv ")
    text, page, data = repr(report), report._repr_html_(), json.dumps(report.to_dict(), allow_nan=False)
    for said in (text, page, data):
        assert str(tmp_path) not in said and str(tiny_file.parent) not in said and tiny_file.name in said
        assert "\x1b" not in said and "\u202e" not in said
    assert "<b>" not in page and page.startswith("<pre ")
    assert f"torch {torch.__version__}" in text and lab.load_model(tiny_file).card.fingerprint[:12] in text
    assert report.to_dict()["ok"] is False and len(report.to_dict()["table"]) == 9


def test_a_model_alone_can_be_verified(tiny):
    report = verify(tiny)
    assert report.ok and not len(report.table) and "give the path of the .pth" in report.findings[0]
    assert "official=False" in verify(tiny, official=False).findings[0]


def test_nothing_given_is_changed(tiny, random_state):
    state = random_state("s")
    before, texts = state.wkv.clone(), [("q", "a"), "text"]
    first, again = (verify(tiny, state, texts=texts) for _ in range(2))
    assert torch.equal(state.wkv, before) and first.table.equals(again.table)


def test_a_state_far_above_normal_running_is_told(tiny, random_state):
    report = verify(tiny, 1000 * random_state("s"), texts=["some text"] * 8)
    assert "tuned with too high a rate" in finding(report, "size: ")
    assert "too high" not in finding(verify(tiny, random_state("s") * 0.1, texts=["some text"] * 8), "size: ")


def test_what_does_not_fit_or_cannot_be_read_is_refused_as_everywhere(tiny, random_state, tmp_path):
    lab.save_state(lab.State(torch.ones(2, 3, 16, 16)), tmp_path / "other.pth")
    state = random_state("s")
    with pytest.raises(MismatchError, match=r"H=3 \(model 2\)"):
        verify(tiny, tmp_path / "other.pth")
    with pytest.raises(MismatchError, match="another base"):
        verify(tiny, state.replace(card=state.card.replace(base="ab" * 32)))
    cases = [
        ({"texts": []}, ArgError, "texts: empty"),
        ({"texts": "text"}, ArgError, "texts: need a list"),
        ({"texts": [("a", "b", "c")]}, ArgError, r"texts\[0\]: need a \(question, answer\) pair"),
        ({"texts": ["ok then", 5]}, ArgError, r"texts\[1\]"),
        ({"texts": ["x"]}, PromptError, r"texts\[0\]: too short"),
        ({"texts": [("a", "b\ud800")]}, PromptError, r"texts\[0\]"),
        ({"texts": ["ok then", (" ", "b")]}, PromptError, r"texts\[1\]: .*empty"),
        ({"texts": [{"prompt": "a"}]}, ArgError, r"texts\[0\]: need a \(question, answer\) pair"),
        ({"seeds": (1, 2)}, ArgError, "seeds: need at least three"),
        ({"seeds": (1, 2, 2)}, ArgError, "seeds: need at least three"),
        ({"seeds": (1, 2, -3)}, ArgError, "seeds: need an integer"),
        ({"template": "nope"}, ArgError, "template"),
        ({"orientation": "KV"}, ArgError, "only for a state that is given as a file"),
    ]
    for arguments, kind, message in cases:
        with pytest.raises(kind, match=message):
            verify(tiny, state, **arguments)
    with pytest.raises(ArgError, match="state: need a State"):
        verify(tiny, 5)
    with pytest.raises(ArgError, match="texts: they are read from a state"):
        verify(tiny, texts=["some text"])


def test_a_vocabulary_that_cannot_write_our_texts_asks_for_others(tiny_file, random_state, tmp_path):
    vocab = tmp_path / "vocab.txt"
    vocab.write_text("".join(f"{i} {chr(96 + i)!r} 1\n" for i in range(1, 27)), encoding="utf-8")
    model = lab.load_model(tiny_file, tokenizer=vocab)
    with pytest.raises(PromptError, match=r"the built-in texts: .*give texts="):
        verify(model, random_state("s"))
    assert len(verify(model, random_state("s"), texts=["some"] * 8, template="raw").table) == 9


def test_an_interruption_is_a_cancel(tiny, random_state, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "effects", stop)
    with pytest.raises(Cancelled, match="verify: interrupted"):
        verify(tiny, random_state("s"), texts=["text"])


def test_our_own_texts_are_half_chinese_and_all_different():
    chinese = [any("\u4e00" <= char <= "\u9fff" for char in question) for question, _ in TEXTS]
    assert len(TEXTS) == len({question for question, _ in TEXTS}) == 24 and sum(chinese) == 12
