"""The house as a whole: top-level entries, one list of dependencies, clean notebooks, a true map, small files."""

import ast
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parents[1]
TOP = {
    *("README.md", "README.zh.md", "LICENSE", "pyproject.toml", "environment.yml", "constraints.txt", "Makefile"),
    *(".ci", ".pre-commit-config.yaml", ".gitignore", "kernels", "rwkvlab", "notebooks", "tests"),
}
NOTEBOOKS = sorted(ROOT.glob("notebooks/*.ipynb"))


def tracked():
    out = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if out.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in out.stdout.split("\0") if name]


def specs(requirements):
    return {
        Requirement(r).name.replace("_", "-"): (str(Requirement(r).specifier), str(Requirement(r).marker or ""))
        for r in requirements
    }


def test_the_top_level_holds_nothing_else():
    assert {path.relative_to(ROOT).parts[0] for path in tracked()} <= TOP


def test_conda_and_pip_get_the_same_dependencies():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    env = yaml.safe_load((ROOT / "environment.yml").read_text("utf-8"))["dependencies"]
    pip = next(entry["pip"] for entry in env if isinstance(entry, dict))
    conda = [e.replace("matplotlib-base", "matplotlib") for e in env if isinstance(e, str)]
    conda = [e for e in conda if not e.startswith(("pip>", "python>"))]
    assert "-e ." in pip
    assert f"python{project['requires-python']}" in env
    assert specs([*conda, *(p for p in pip if p != "-e .")]) == specs(project["dependencies"])


def test_the_pinned_versions_lie_in_the_ranges():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    pins = [line for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if line and line[0] != "#"]
    pinned = {Requirement(p).name.lower().replace("_", "-"): str(Requirement(p).specifier)[2:] for p in pins}
    wanted = [Requirement(r) for r in project["dependencies"] + project["optional-dependencies"]["dev"]]
    for requirement in wanted:
        name = requirement.name.lower().replace("_", "-")
        assert name in pinned, f"{name} has no pin"
        assert requirement.specifier.contains(pinned[name], prereleases=True), f"{name} {pinned[name]}"


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_notebooks_are_clean_and_short(path):
    cells = json.loads(path.read_text("utf-8"))["cells"]
    for cell in cells:
        source = "".join(cell["source"])
        assert not cell.get("outputs") and not cell.get("execution_count"), "run: ruff format and clear the outputs"
        if cell["cell_type"] == "code":
            assert len(source.splitlines()) <= 12, source
            assert not any(isinstance(n, ast.FunctionDef) for n in ast.walk(ast.parse(source.replace("%", "#")))), (
                source
            )
    assert cells[-1]["cell_type"] == "markdown", "a notebook ends with what was seen"


@pytest.mark.parametrize("readme", ["README.md", "README.zh.md"])
def test_the_map_lists_every_file(readme):
    text = (ROOT / readme).read_text("utf-8")
    files = [*ROOT.glob("rwkvlab/**/*.py"), *ROOT.glob("kernels/**/*.py")]
    for path in sorted(f for f in files if f.name != "__init__.py"):
        assert f"`{path.relative_to(ROOT)}`" in text, f"{readme} does not list {path.relative_to(ROOT)}"


def test_the_map_says_what_each_file_says():
    text = (ROOT / "README.md").read_text("utf-8")
    for path in [*ROOT.glob("rwkvlab/**/*.py"), *ROOT.glob("kernels/**/*.py")]:
        if path.name == "__init__.py":
            continue
        sentence = ast.get_docstring(ast.parse(path.read_text("utf-8"))).splitlines()[0]
        assert f"| `{path.relative_to(ROOT)}` | {sentence} |" in text, f"README.md: {path.relative_to(ROOT)}"


def test_links_and_pictures_of_the_readme_exist():
    for readme in ("README.md", "README.zh.md"):
        text = (ROOT / readme).read_text("utf-8")
        for target in re.findall(r"\]\(([^)#]+)\)", text):
            assert target.startswith("https://") or (ROOT / target).exists(), f"{readme}: {target}"


def test_files_stay_small_enough_to_clone():
    sizes = {path: path.stat().st_size for path in tracked() if path.exists()}
    assert max(sizes.values()) <= 16 * 2**20
    assert sum(sizes.values()) <= 60 * 2**20


def test_the_repo_names_no_machine():
    words = ["/work" + "/", "/root" + "/", "opt/" + "pypi", "fake" + "cuda"]
    for path in tracked():
        if path.suffix in (".py", ".md", ".toml", ".yml", ".yaml", ".txt", ".ipynb", ".json") and path.exists():
            text = path.read_text("utf-8")
            assert not any(word in text for word in words), path
