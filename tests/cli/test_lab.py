"""rwkvlab lab: copies of the notebooks that stay the user's, and JupyterLab started in them."""

import json
import os
import shutil
import sys
import tomllib
from pathlib import Path

import pytest

from rwkvlab.cli import lab as lab_module
from rwkvlab.cli import main

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = {path.name: path.read_bytes() for path in (ROOT / "notebooks").glob("*.ipynb")}


@pytest.fixture
def started(monkeypatch, tmp_path):
    """What would be started, in a current folder of its own: (command, environment) of every call."""
    calls = []
    monkeypatch.setattr(os, "execve", lambda path, words, env: calls.append((words, env)) or 0)
    monkeypatch.chdir(tmp_path)
    return calls


def rewritten(path, **changes):
    """Change the keys of the first code cell of a notebook."""
    notebook = json.loads(path.read_text("utf-8"))
    next(cell for cell in notebook["cells"] if cell["cell_type"] == "code").update(changes)
    path.write_text(json.dumps(notebook), "utf-8")
    return path.read_bytes()


def test_jupyterlab_is_started_in_copies_that_can_be_written(started, tmp_path, capsys):
    main(["lab", "--no-browser", "--port=9999"])
    words, environment = started[0]
    folder = tmp_path / "rwkvlab-notebooks"
    assert words[:4] == [sys.executable, "-m", "jupyterlab", str(folder)]
    assert words[-2:] == ["--no-browser", "--port=9999"]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == SHIPPED
    assert all(os.access(path, os.W_OK) for path in folder.iterdir())
    assert capsys.readouterr() == (f"rwkvlab-notebooks: {len(SHIPPED)} notebooks copied\n", "")
    settings = Path(environment["JUPYTER_CONFIG_PATH"], "labconfig", "default_setting_overrides.json")
    assert json.loads(settings.read_text())["@jupyterlab/apputils-extension:notification"]["fetchNews"] == "false"


def test_a_changed_notebook_is_never_overwritten_and_a_missing_one_comes_back(started, tmp_path, capsys):
    main(["lab"])
    first, second, third = sorted((tmp_path / "rwkvlab-notebooks").iterdir())[:3]
    mine = rewritten(first, source=["print('mine')"])
    ran = rewritten(second, outputs=[{"output_type": "stream", "name": "stdout", "text": ["1"]}], execution_count=3)
    third.unlink()
    capsys.readouterr()
    main(["lab"])
    assert first.read_bytes() == mine and second.read_bytes() == ran and third.read_bytes() == SHIPPED[third.name]
    out = capsys.readouterr().out
    # one that was only run is the same notebook still
    assert out.startswith("rwkvlab-notebooks: 1 notebook copied, 1 notebook unlike") and "--fresh" in out
    assert out.count("\n") == 1
    first.unlink()
    for _ in range(2):
        main(["lab"])
    assert capsys.readouterr().out.endswith("rwkvlab-notebooks: nothing to copy\n")
    first.write_bytes(b"[" * 100_000)
    main(["lab"])
    assert first.read_bytes() == b"[" * 100_000
    assert ": nothing to copy, 1 notebook unlike" in capsys.readouterr().out


def test_fresh_copies_go_into_a_new_folder(started, tmp_path):
    for _ in range(3):
        main(["lab", "--fresh"])
        changed = Path(started[-1][0][3], min(SHIPPED))
        assert changed.read_bytes() == SHIPPED[changed.name]
        changed.write_text("mine")
    assert [Path(words[3]).name for words, _ in started] == [f"rwkvlab-notebooks{n}" for n in ("", "-2", "-3")]
    assert all((Path(words[3]) / min(SHIPPED)).read_text() == "mine" for words, _ in started)


def test_the_copies_go_where_to_says(started, tmp_path):
    main(["lab", "--to", "a/笔记", "--port", "9999"])
    words = started[0][0]
    assert words[3] == str(tmp_path / "a" / "笔记") and words[-2:] == ["--port", "9999"]
    assert {path.name for path in (tmp_path / "a" / "笔记").iterdir()} == set(SHIPPED)
    main(["lab", "--to=-x"])
    assert started[1][0][3] == str(tmp_path / "-x")
    main(["lab", "--to", ".", "--fresh"])
    assert started[2][0][3] == f"{tmp_path}-2"
    shutil.rmtree(f"{tmp_path}-2")


def test_a_given_folder_or_notebook_is_opened_as_it_is(started, tmp_path, capsys):
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "a.ipynb").write_text("{}")
    for given in ("own", "own/a.ipynb", str(tmp_path)):
        main(["lab", given, "--no-browser"])
        assert started[-1][0][3] == str((tmp_path / given).absolute()) and started[-1][0][-1] == "--no-browser"
    assert capsys.readouterr() == ("", "")
    assert [path.name for path in tmp_path.iterdir()] == ["own"]


def test_jupyters_own_search_path_is_kept(started, monkeypatch):
    monkeypatch.setenv("JUPYTER_CONFIG_PATH", "mine")
    main(["lab"])
    assert started[0][1]["JUPYTER_CONFIG_PATH"].split(os.pathsep)[0] == "mine"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["nowhere"], "nowhere"),
        (["own", "--fresh"], "--fresh"),
        (["own", "--to", "x"], "--to"),
        (["--to", "file"], "File exists"),
        (["--to", "file/x"], "--to"),
        (["--to", "nul\0"], "not a path"),
        (["--to", "evil\x1b[31m\nfile/\0"], "evil"),
    ],
)
def test_a_mistake_is_one_line_that_names_it(started, tmp_path, capsys, arguments, words):
    (tmp_path / "own").mkdir()
    (tmp_path / "file").write_text("")
    assert main(["lab", *arguments]) == 2
    out, err = capsys.readouterr()
    assert started == [] and out == "" and err.startswith("rwkvlab: error: ") and words in err
    assert err.count("\n") == 1 and "\x1b" not in err


def test_an_installation_without_notebooks_says_so(started, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(lab_module, "__file__", str(tmp_path / "site" / "rwkvlab" / "cli" / "lab.py"))
    assert main(["lab"]) == 2
    assert "no notebooks in" in capsys.readouterr().err and started == []
    # an installed wheel has them beside its rooms
    (tmp_path / "site" / "rwkvlab" / "notebooks").mkdir(parents=True)
    (tmp_path / "site" / "rwkvlab" / "notebooks" / "01_a.ipynb").write_text("{}")
    main(["lab"])
    assert [path.name for path in Path(started[0][0][3]).iterdir()] == ["01_a.ipynb"]


def test_the_wheel_takes_the_notebooks_and_the_settings():
    setuptools = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["setuptools"]
    assert (
        "rwkvlab.notebooks" in setuptools["packages"] and setuptools["package-dir"]["rwkvlab.notebooks"] == "notebooks"
    )
    assert setuptools["package-data"]["rwkvlab.notebooks"] == ["*.ipynb"]
    settings = [path for pattern in setuptools["package-data"]["rwkvlab"] for path in (ROOT / "rwkvlab").glob(pattern)]
    assert ROOT / "rwkvlab/cli/jupyter/labconfig/default_setting_overrides.json" in settings


def test_the_help_says_what_is_copied_and_what_is_not(capsys):
    with pytest.raises(SystemExit, match="0"):
        main(["lab", "--help"])
    out = capsys.readouterr().out
    assert all(word in out for word in ("FOLDER", "--to DIR", "--fresh", "rwkvlab-notebooks", "JupyterLab"))
