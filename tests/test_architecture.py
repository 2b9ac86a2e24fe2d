"""The floors of the house: imports run down only, and each outside library has its room."""

import ast
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = {
    "wkv": 0,
    "errors": 0,
    "shapes": 1,
    "tensorfile": 2,
    "hub": 2,
    "tasks": 2,
    "states": 3,
    "model": 4,
    "plots": 4,
    "measure": 5,
    "widgets": 6,
    "cli": 7,
    "bundled": 7,
}
ONLY_IN = {
    "triton": {"wkv"},
    "matplotlib": {"plots", "widgets"},
    "ipywidgets": {"widgets"},
    "anywidget": {"widgets"},
    "traitlets": {"widgets"},
    "IPython": {"widgets"},
    "huggingface_hub": {"hub"},
    "isal": {"tensorfile"},
    "tomlkit": {"states"},
    "pyrwkv_tokenizer": {"model"},
}
NEVER = {"rwkv", "rwkv7_hf", "fla", "safetensors", "pickle", "transformers", "seaborn"}
# a script that `verify` starts in a process of its own where PyPI's rwkv happens to be installed; imported by nothing
EXCEPT = {("rwkvlab/measure/verifying/official_run.py", "rwkv")}
# values that draw themselves, State.plot and Difference.plot: they ask the plots, and only when they are called
DRAW = {("rwkvlab/states/state.py", "rwkvlab.plots"), ("rwkvlab/measure/diff_report.py", "rwkvlab.plots")}
FILES = sorted([*ROOT.glob("rwkvlab/**/*.py"), *ROOT.glob("kernels/wkv/**/*.py")])


def room_of(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return "wkv" if parts[0] == "kernels" else {"demo": "cli"}.get(parts[1], parts[1])


def imports_of(path):
    """Every module that a file imports, wherever in it, as a dotted name."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module
            if node.module == "rwkvlab":
                yield from (f"rwkvlab.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_run_down_only(path):
    here = room_of(path)
    if here == "__init__":
        return  # the face re-exports from everywhere
    assert here in FLOORS, f"{path}: no floor for room {here}"
    for module in imports_of(path):
        top, *rest = module.split(".")
        assert top not in NEVER or (path.relative_to(ROOT).as_posix(), top) in EXCEPT, f"{path} imports {module}"
        assert module != "rwkvlab.measure.verifying.official_run", f"{path} imports a script"
        assert here in ONLY_IN.get(top, {here}), f"{path} imports {module}, which belongs to {ONLY_IN[top]}"
        if top == "wkv":
            assert here in ("wkv", "model"), f"{path}: only model imports wkv"
        if top != "rwkvlab":
            continue
        if not rest:
            assert here == "cli", f"{path} imports the face"
            continue
        room = {"demo": "cli"}.get(rest[0], rest[0])
        if room not in FLOORS:
            assert here == "cli", f"{path} imports {module}"
            continue
        if (path.relative_to(ROOT).as_posix(), f"rwkvlab.{room}") in DRAW:
            continue
        assert room == here or FLOORS[room] < FLOORS[here], f"{path} ({here}) imports {module} ({room})"
        assert not (here == "measure" and room == "plots"), f"{path}: measures do not draw"
        assert not (here == "plots" and room in ("model", "tasks")), f"{path}: plots imports {room}"


@pytest.mark.parametrize(("name", "plots"), sorted(DRAW))
def test_a_value_that_draws_itself_asks_the_plots_only_when_it_is_called(name, plots):
    tree = ast.parse((ROOT / name).read_text("utf-8"))
    inside = {id(node) for f in ast.walk(tree) if isinstance(f, ast.FunctionDef) for node in ast.walk(f)}
    found = [n for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.module.startswith(plots)]
    assert found and all(id(node) in inside for node in found)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_import_hides_in_a_string(path):
    if room_of(path) != "__init__":
        assert "import_module(" not in path.read_text("utf-8"), f"{path}: import it in plain sight"


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_file_says_what_it_is_for_and_stays_small(path):
    text = path.read_text("utf-8")
    tree = ast.parse(text)
    doc = ast.get_docstring(tree)
    lines = len(text.splitlines())
    if path.name == "__init__.py":
        assert lines <= 40
        kinds = (ast.Import, ast.ImportFrom, ast.Assign, ast.Expr)
        lazy = [n for n in tree.body if isinstance(n, ast.FunctionDef) and n.name in ("__getattr__", "__dir__")]
        assert all(isinstance(node, kinds) or node in lazy for node in tree.body), f"{path}: only re-exports"
    assert doc, f"{path}: opens with no sentence"
    assert re.match(r".*[.!?](\n|$)", doc.split("\n")[0]), f"{path}: {doc.splitlines()[0]}"
    assert lines <= (320 if room_of(path) == "wkv" else 220), f"{path}: {lines} lines"
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            jit = any("jit" in ast.dump(decorator) for decorator in node.decorator_list)
            length = node.end_lineno - node.lineno + 1
            assert length <= (150 if jit else 60), f"{path}: {node.name} has {length} lines"


def test_importing_the_package_loads_nothing_heavy_and_changes_nothing():
    import subprocess

    code = (
        "import sys, rwkvlab; "
        "print([m for m in ('triton', 'ipywidgets', 'jupyterlab', 'transformers', 'huggingface_hub', 'IPython')"
        " if m in sys.modules])"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]" and out.stderr == ""


def test_tab_offers_every_plot_and_every_public_name():
    import rwkvlab
    from rwkvlab import plots

    offered = dir(rwkvlab)
    assert {"plots", "widgets", "State", "compare"} <= {*offered}
    assert {name for name in dir(plots) if name.startswith("plot_")} <= {*offered}
    assert all(getattr(rwkvlab, name) is not None for name in offered if name.startswith("plot_"))


def test_nothing_in_the_sources_can_run_code_from_a_file():
    banned = r"\b(eval|exec|__import__)\(|torch\.load\(|weights_only|shell=True|yaml\.load\(|allow_pickle"
    for path in FILES:
        for number, line in enumerate(path.read_text("utf-8").splitlines(), 1):
            code = line.split("#")[0]
            found = re.search(banned, code)
            assert not found or ".eval()" in code, f"{path}:{number}: {line.strip()}"
