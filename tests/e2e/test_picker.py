"""A person picks a state: by filter, by click, by keyboard; sees what cannot be used and why; adds a folder."""

import pytest

CELLS = [
    """
import pathlib
import torch
import rwkvlab as lab
model, shelf = lab.bundled("rwkv7")
states = {state.card.name: state for state in (shelf[name] for name in list(shelf)[:14])}
for name in ("states", "更多"):
    pathlib.Path(name).mkdir()
for name, state in states.items():
    lab.save_state(state, f"states/{name}.pth")
lab.save_state(lab.State(torch.ones(2, 3, 16, 16)), "states/三个头 three heads.pth")
pathlib.Path("states/<img src=x onerror=alert(1)>.pth").write_bytes(b"nothing")
lab.save_state(states[list(states)[0]], "更多/文言文.safetensors")""",
    "picker = lab.widgets.StatePicker('states', model)\npicker",
]
SAYS = ".rwkvlab-picker .rwkvlab-caption"


@pytest.fixture
def opened(open_notebook, expect):
    def open_(**options):
        notebook = open_notebook(CELLS, **options).run_all()
        assert notebook.errors() == [] and notebook.stderr() == []
        expect(notebook.page.locator(SAYS)).to_contain_text("16 listed, 2 cannot be used")
        return notebook

    return open_


def row(page, text):
    return page.locator(".rwkvlab-table-row").filter(has_text=text)


def test_a_person_finds_a_state_and_python_has_it(opened, expect, theme):
    notebook = opened(theme=theme)
    page = notebook.page
    notebook.shot(f"picker-{theme}")
    page.locator(".rwkvlab-filter input").fill("x070 emoji")
    expect(page.locator(".rwkvlab-table-row")).to_have_count(2)
    expect(page.locator(SAYS)).to_contain_text("1 of 16 listed")
    row(page, "emoji").click()
    expect(page.locator(SAYS)).to_contain_text("chosen: rwkv-x070-emoji")
    expect(row(page, "emoji")).to_have_attribute("aria-selected", "true")
    assert "emoji" in notebook.run("print(picker.name, picker.state.wkv.shape[0])")
    # and from Python to the page
    notebook.run("picker.filter = ''; picker.name = [n for n in picker.sources if 'json' in n][0]")
    expect(row(page, "json")).to_have_attribute("aria-selected", "true")
    expect(page.locator(".rwkvlab-filter input")).to_have_value("")


def test_what_cannot_be_used_is_greyed_with_its_reason(opened, expect, theme):
    notebook = opened(theme=theme)
    page = notebook.page
    before = notebook.run("print(picker.name)")
    page.locator(".rwkvlab-table").evaluate("grid => grid.scrollTop = grid.scrollHeight")
    bad = row(page, "three heads")
    expect(bad).to_have_attribute("aria-disabled", "true")
    expect(bad.locator(".why")).to_contain_text("H=3 (model 4)")
    assert "cannot be used" in bad.get_attribute("title")
    bad.click(force=True)  # playwright waits for what is disabled to change
    expect(page.locator(SAYS)).to_contain_text("三个头 three heads")
    expect(page.locator(SAYS)).to_contain_text("H=3 (model 4)")
    expect(bad).to_have_attribute("aria-selected", "false")
    notebook.shot(f"picker-greyed-{theme}")
    assert notebook.run("print(picker.name)") == before
    expect(row(page, "<img src=x")).to_be_visible()


def test_the_keyboard_alone_is_enough_and_runs_no_command_of_the_notebook(opened, expect):
    notebook = opened()
    page = notebook.page
    grid = page.locator(".rwkvlab-table")
    page.locator(".rwkvlab-refresh").focus()
    page.keyboard.press("Tab")
    expect(grid).to_be_focused()
    count = len(notebook.cells())
    for key in ("End", "Home", "ArrowDown", "ArrowDown", "b", "d", "d"):
        page.keyboard.press(key)
    page.wait_for_timeout(1000)
    page.keyboard.press("Home")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    expect(page.locator(SAYS)).to_contain_text("chosen: rwkv-x070-brief")
    assert len(notebook.cells()) == count
    page.keyboard.type("<im")  # the first letters of a row's name
    expect(grid.locator(".rwkvlab-table-row.active")).to_contain_text("<img src=x")
    assert grid.get_attribute("aria-activedescendant") == grid.locator(".active").get_attribute("id")
    notebook.shot("picker-keyboard")
    page.keyboard.press("Enter")
    expect(page.locator(SAYS)).to_contain_text("has 7 bytes")
    assert "brief" in notebook.run("print(picker.name)")


def test_a_column_sorts_and_a_folder_and_new_files_come_in(opened, expect):
    notebook = opened()
    page = notebook.page
    heading = page.locator(".rwkvlab-table-head button", has_text="purpose")
    heading.click()
    heading.click()
    expect(page.get_by_role("columnheader", name="purpose")).to_have_attribute("aria-sort", "descending")
    expect(page.locator(".rwkvlab-table-row").nth(0)).to_contain_text("zero (no state)")
    first = page.locator(".rwkvlab-table-row").nth(1)
    expect(first).to_contain_text("shakespeare_plays")
    page.locator(".rwkvlab-folder input").fill("nowhere")
    page.locator(".rwkvlab-add").click()
    expect(page.locator(SAYS)).to_contain_text("no readable folder")
    page.locator(".rwkvlab-folder input").fill("更多")
    page.locator(".rwkvlab-add").click()
    expect(page.locator(SAYS)).to_contain_text("1 more from")
    page.locator(".rwkvlab-filter input").fill("文言文")
    row(page, "文言文").click()
    expect(page.locator(SAYS)).to_contain_text("chosen: 文言文")
    notebook.run("import os; os.remove(os.path.join('更多', '文言文.safetensors')); print('gone')")
    page.locator(".rwkvlab-refresh").click()
    expect(page.locator(SAYS)).to_contain_text("still chosen as it was")
    assert notebook.run("print(picker.name == '', picker.state.card.name)") == "True 文言文\n"
    page.locator(".rwkvlab-copy").click()
    expect(page.locator(".rwkvlab-code pre")).to_contain_text("lab.widgets.StatePicker('states', model")
    code = "again = eval(picker.code.replace('state=state', 'state=picker.state'))\nprint(again.code == picker.code)"
    again = notebook.run(code)
    assert again == "True\n"


def test_a_table_of_two_thousand_states_answers_at_once(open_notebook, expect):
    cell = """
import torch
import rwkvlab as lab
one = lab.State(torch.ones(2, 2, 4, 4))
picker = lab.widgets.StatePicker({f"状态 {number}": one for number in range(2000)})
picker"""
    notebook = open_notebook([cell]).run_all()
    page = notebook.page
    expect(page.locator(SAYS)).to_contain_text("2,000 listed")
    assert page.locator(".rwkvlab-table-row").count() < 60
    page.locator(".rwkvlab-table").focus()
    page.keyboard.press("End")
    expect(page.locator(".rwkvlab-table-row.active")).to_contain_text("状态 1999")
    page.keyboard.press("Enter")
    expect(page.locator(SAYS)).to_contain_text("chosen: 状态 1999")
    took = page.evaluate("""async () => {
        const grid = document.querySelector(".rwkvlab-table"), start = performance.now();
        for (let i = 0; i < 20; i++) { grid.scrollTop = i * 2500; await new Promise(requestAnimationFrame); }
        return (performance.now() - start) / 20; }""")
    assert took < 200, f"{took} ms a frame"
