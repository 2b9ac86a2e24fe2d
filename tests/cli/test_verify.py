"""`rwkvlab verify` prints the report of `lab.verify`, and its exit code tells whether all is well."""

import json

import pytest

import rwkvlab as lab
from rwkvlab.bundled.shelf import bundled
from rwkvlab.cli import main
from rwkvlab.tasks.builtin import micro_tasks


@pytest.fixture(scope="module")
def call(tmp_path_factory):
    """call("--json", …) -> exit code of verifying the bundled model and its state for sorting."""
    folder = tmp_path_factory.mktemp("verify")
    shelf = bundled()[1]
    home = shelf.path("sort").parents[1]
    task = next(task for task in micro_tasks(16) if task.name == "sort")
    lines = [json.dumps({"question": prompt, "answer": answer}) for prompt, answer in task.examples()]
    (folder / "sort.jsonl").write_text("\n".join(lines), "utf-8")
    lab.save_state(lab.transposed(shelf["sort"]), folder / "other-way.pth")
    given = {"own": shelf.path("sort"), "other-way": folder / "other-way.pth"}

    def verify(state, *more):
        texts = ["--texts", str(folder / "sort.jsonl"), "--tokenizer", str(home / "vocab.txt"), "--template", "raw"]
        return main(["verify", str(home / "micro.pth"), str(given[state]), *texts, "--no-official", *more])

    return verify


def test_a_state_that_works_is_ok(call, capsys):
    assert call("own") == 0
    out = capsys.readouterr().out
    assert "the state helps by" in out and "right as it is" in out and out.rstrip().endswith("ok")


def test_a_state_the_other_way_round_is_not_and_what_to_do_is_said(call, capsys):
    assert call("other-way") == 1
    assert "--orientation KV" in capsys.readouterr().out.replace("\n  ", " ")
    assert call("other-way", "--orientation", "KV") == 0


def test_the_report_as_json(call, capsys):
    assert call("own", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["ok"] is True and found["orientation"] == "as stored"
    assert {row["start"] for row in found["table"]} >= {"zero", "as stored", "transposed", "random 0"}


def test_what_stays_open_has_an_exit_code_of_its_own(call, tmp_path, capsys):
    (tmp_path / "few.txt").write_text("cab -> abc\n" * 9)
    assert call("own", "--texts", str(tmp_path / "few.txt"), "--seeds", "3") == 3
    out = capsys.readouterr().out
    assert out.rstrip().endswith("undecided: see the lines with ?") and "random 2" in out and "random 3" not in out
    assert "give at least 8 texts that differ" in out.replace("\n  ", " ")


@pytest.mark.parametrize("count", ["2", "101", "-1"])
def test_the_number_of_random_states_is_checked(call, count, capsys):
    assert call("own", "--seeds", count) == 2
    assert f"--seeds: need 3 to 100 random states, got {count}" in capsys.readouterr().err


def test_texts_without_a_state_ask_for_one(tmp_path, capsys):
    assert main(["verify", "model.pth", "--texts", str(tmp_path / "none")]) == 2
    assert "add STATE behind MODEL" in capsys.readouterr().err
