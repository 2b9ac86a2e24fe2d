"""Files and code that other programs read: a text stays a text, for browsers, spreadsheets, TOML, JSON, Python."""

import ast
import csv
import io
import json
import tomllib

import pytest
from made import Folder, command, everywhere, state_with
from payloads import CHINESE, FEW, FORTY, HARMLESS, KINDS, PAYLOADS, acting, whole
from trees import Tree, differences

import rwkvlab as lab
from rwkvlab.measure.comparing.spreadsheet import FORMULAS, csv_bytes
from rwkvlab.widgets.base.code import call, state_code

CONFIG = '# 配置\n[model]\npath = "models" # here\n\n[listen]\nport = 1\n'


def test_a_page_is_a_file_that_needs_nothing_and_holds_every_text(tmp_path):
    plain = Tree(everywhere(HARMLESS).to_html(tmp_path / "plain.html").read_text("utf-8"))
    for text in FORTY:
        page = everywhere(text).to_html(tmp_path / "a.html").read_bytes().decode("utf-8")
        assert page.startswith("<!DOCTYPE html>") and page.index("Content-Security-Policy") < page.index("<title>")
        tree = Tree(page)
        assert not (tree.wrong() or differences(plain, tree, text)), text


@pytest.mark.parametrize("tokens", [False, True])
def test_no_cell_of_a_table_is_a_formula_and_every_text_comes_back(tokens, tmp_path):
    for text in FEW:
        path = everywhere(text).to_csv(tmp_path / "a.csv", tokens=tokens)
        rows = list(csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")))
        cells = [cell for row in rows for cell in row.values()]
        numbers = [cell for cell in cells if cell.removeprefix("-").replace(".", "").isdigit()]
        # blanks and invisible characters in front do not keep a spreadsheet from calculating
        begins = [cell.lstrip().lstrip("\ufeff\u200b\u2060\x00")[:1] for cell in cells if cell not in numbers]
        assert not set(begins) & set(FORMULAS), (text, cells)
        read = {row["prompt"].removeprefix("'") for row in rows}
        assert read == {text.encode("utf-8", "backslashreplace").decode()} or text.startswith("'"), text


def test_a_column_is_no_formula_either():
    import pandas as pd

    for text in PAYLOADS:
        head = csv_bytes(pd.DataFrame({text: [text]})).decode("utf-8-sig")
        assert next(csv.reader(io.StringIO(head, newline="")))[0].lstrip()[:1] not in FORMULAS, text


def test_a_config_has_an_entry_more_and_the_rest_as_it_was(root):
    written = 0
    for text in FEW:
        folder = Folder(text, root)
        (folder.path / "models").mkdir()
        path = folder.path / "Config.toml"
        path.write_text(CONFIG, encoding="utf-8")
        try:
            lab.write_ai00({text: state_with(name=text)}, path)
        except lab.RwkvLabError as refused:
            said = str(refused)
            assert path.read_text("utf-8") == CONFIG and not acting(said, ""), text
            continue
        found, written = tomllib.loads(path.read_text("utf-8")), written + 1
        assert path.read_text("utf-8").startswith(CONFIG) and set(found) == {"model", "listen", "state"}, text
        assert [entry["name"] for entry in found["state"]] == [text]
    assert written >= 10
    assert all(text in FEW for text in CHINESE[:3])


@pytest.mark.parametrize("name", ["inspect", "diff"])
def test_json_is_json_and_says_the_text(name, root):
    for text in [*FORTY, *KINDS["entities"]] if name == "inspect" else FORTY:
        files = [Folder(text, root).state(name=text, recipe=text, notes=(text,)), Folder(text, root).state()]
        shown = command(name, "--json", *files)
        found = json.loads(shown)
        assert not acting(shown) and isinstance(found, (list, dict)), text
        said = strings(found)
        assert whole(text) != text or any(text in one for one in said), text


def strings(found):
    """Return every text in some JSON."""
    if isinstance(found, dict):
        return strings([*found, *found.values()])
    if isinstance(found, list):
        return [text for item in found for text in strings(item)]
    return [found] if isinstance(found, str) else []


def shape(code):
    """Return a call as it is parsed, all texts in it alike."""
    tree = ast.parse(code, mode="eval")
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            node.value = ""
    return ast.dump(tree)


def test_code_to_copy_is_the_same_call_whatever_the_text():
    for make in (
        lambda text: state_code(state_with(), {text: state_with()}, text),
        lambda text: state_code(state_with(name=text, source=text)),
        lambda text: call("lab.compare", "model", state_code(state_with(), {text: 1}, text), prompts=[text], name=text),
    ):
        plain = shape(make(HARMLESS))
        for text in PAYLOADS:
            code = make(text)
            assert shape(code) == plain and not acting(code, ""), text
        assert all(text in make(text) or text not in code for text in CHINESE)
    assert state_code(state_with(), {"文言文": 1}, "文言文") == "shelf['文言文']"
