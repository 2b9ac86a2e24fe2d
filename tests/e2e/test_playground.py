"""A person asks several initial states at once: sees them write, stops, switches in mid-chat, errs and goes on."""

import re
from pathlib import Path

import pytest

CELLS = [
    """
import rwkvlab as lab
from rwkvlab.widgets import Playground
model, shelf = lab.bundled("rwkv7")
emoji, classical = ([name for name in shelf if word in name][0] for word in ("emoji", "classical"))""",
    'playground = Playground(model, shelf, columns=("zero", emoji))\nplayground',
]
ROOT = ".rwkvlab-playground"
SAYS = f"{ROOT} .rwkvlab-work .rwkvlab-caption"
NOTE = f"{ROOT} > .rwkvlab-says .rwkvlab-caption"
CELL = f"{ROOT} > .rwkvlab-answers td"
LONG = "playground.sampling = {'max_tokens': 100_000, 'ban': [0], 'stop': '（never）', 'presence': 2.0, 'top_p': 0.9}"


@pytest.fixture
def opened(open_notebook, expect):
    def open_(cells=CELLS, **options):
        notebook = open_notebook(cells, **options).run_all()
        assert notebook.errors() == [] and notebook.stderr() == []
        expect(notebook.page.locator(f"{ROOT} textarea")).to_be_visible()
        return notebook

    return open_


def ask(page, question):
    page.locator(f"{ROOT} textarea").fill(question)
    page.get_by_role("button", name="Ask").click()


def test_a_person_asks_and_the_columns_answer_side_by_side(opened, expect, theme):
    notebook = opened(theme=theme)
    page = notebook.page
    ask(page, "东京到巴黎怎么走?")
    expect(page.locator(SAYS)).to_have_text("answered: 2 columns, seed 0")
    zero, emoji = page.locator(CELL).nth(0), page.locator(CELL).nth(1)
    expect(zero).to_contain_text("东京")
    expect(emoji).to_contain_text("✈")
    # the strip of KL shades tokens, says what the shades mean, and what the baseline has not is marked
    assert emoji.locator("mark").count() > 0 and zero.locator("mark").count() == 0
    expect(page.locator(f"{ROOT} .rwkvlab-key")).to_contain_text("KL(start ‖ zero) at each token")
    shade = emoji.locator(".k4, .k5, .k6").first.evaluate("one => getComputedStyle(one).backgroundColor")
    assert re.match(r"rgba\(40, 120, 220", shade)
    # text stands out from what is behind it
    ink, paper = page.locator(f"{ROOT} textarea").evaluate(
        "box => [getComputedStyle(box).color, getComputedStyle(box).backgroundColor]"
    )
    bright = [sum(map(int, re.findall(r"\d+", colour)[:3])) > 380 for colour in (ink, paper)]
    assert bright == [theme == "dark", theme == "light"], (ink, paper)
    notebook.shot(f"playground-{theme}")
    said = notebook.run("print(playground.result.table.text.tolist(), playground.question)")
    assert "东京到巴黎怎么走?" in said and "✈" in said


def test_text_is_seen_to_grow_and_stop_keeps_it(opened, expect):
    # many columns on a narrow page: the table scrolls, the rest wraps
    notebook = opened(theme="dark", viewport={"width": 1000, "height": 1100})
    page = notebook.page
    notebook.run(f"{LONG}; playground.columns = (*playground.columns, classical, *list(shelf)[:2])")
    page.locator(f"{ROOT} textarea").fill("写一首长诗")
    page.keyboard.press("Control+Enter")
    first = [page.locator(f"{ROOT} .rwkvlab-writes").nth(at) for at in (0, 4)]
    for cell in first:
        expect(cell).to_contain_text(re.compile(".{20}"))
    before = [len(cell.inner_text()) for cell in first]
    expect(page.locator(SAYS)).to_contain_text("of at most 100000 tokens")
    written = f"[...document.querySelectorAll('{ROOT} .rwkvlab-writes')]"
    grown = f"sizes => sizes.every((size, at) => {written}[4 * at].innerText.length > size)"
    page.wait_for_function(grown, arg=before)
    assert page.get_by_role("button", name="Stop").inner_text() == "Stop"
    notebook.shot("playground-writing")
    page.get_by_role("button", name="Stop").click()
    expect(page.locator(SAYS)).to_have_text("stopped: 5 columns, seed 0")
    cells = page.locator(CELL)
    for at, size in zip((0, 4), before, strict=True):
        expect(cells.nth(at)).to_contain_text("(stopped)")
        assert len(cells.nth(at).inner_text()) > size
    table = page.locator(f"{ROOT} > .rwkvlab-answers")
    text = table.inner_text()
    page.wait_for_timeout(500)
    assert table.inner_text() == text, "nothing goes on"
    assert table.evaluate("one => one.scrollWidth > one.clientWidth && one.clientWidth < innerWidth")
    # Ctrl-Enter asked, and did not run the cell again
    assert [cell["n"] for cell in notebook.cells()][:2] == [1, 2]
    assert "'cancelled', 'cancelled', 'cancelled', 'cancelled', 'cancelled'" in notebook.run(
        "print(playground.result.table.finish.tolist(), playground.running)"
    )
    # a page without a kernel gets the answers as text
    notebook.run("playground")
    kept = notebook.cells()[-1]["outputs"][0]["data"]
    assert "写一首长诗" in "".join(kept["text/html"]) and "application/vnd.jupyter.widget-view+json" in kept


def test_a_state_is_switched_in_mid_chat_mistakes_are_told_and_files_saved(opened, expect, tmp_path):
    notebook = opened()
    page = notebook.page
    ask(page, "   ")
    expect(page.locator(SAYS)).to_contain_text("question: empty; ask something")
    page.locator(".rwkvlab-chat input").check()
    ask(page, "东京到巴黎怎么走?")
    expect(page.locator(SAYS)).to_have_text("answered: 2 columns, seed 0")
    second = page.locator(f"{ROOT} .rwkvlab-column select").nth(1)
    second.select_option("zero")
    expect(page.locator(NOTE)).to_contain_text("'zero' stands in column 1 already")
    classical = notebook.run("print(classical, end='')")
    second.select_option(classical)
    expect(page.locator(NOTE)).to_contain_text(f"column 2: '{classical}': reads the 1 question of this chat again")
    ask(page, "去悉尼要带什么钱?")
    expect(page.locator(SAYS)).to_have_text("answered: 2 columns, seed 0, 2 questions in this chat")
    expect(page.locator(f"{ROOT} > .rwkvlab-answers .rwkvlab-note")).to_contain_text("the conversation was read again")
    expect(page.locator(f"{ROOT} > .rwkvlab-answers tbody th").first).to_have_text("东京到巴黎怎么走?")
    page.get_by_role("button", name="Add column").click()
    notebook.shot("playground-chat")
    assert notebook.run("print(len(playground.history), playground.columns[1] == classical)") == "2 True\n"
    for kind, word in (("HTML", "<!DOCTYPE html>"), ("CSV", "去悉尼")):
        with page.expect_download() as download:
            page.get_by_role("button", name=f"Save {kind}").click()
        download.value.save_as(tmp_path / kind)
        assert download.value.suggested_filename == f"answers.{kind.lower()}"
        assert word in Path(tmp_path / kind).read_text("utf-8-sig")
    page.get_by_role("button", name="New chat").click()
    ask(page, "1+1等于几?")
    expect(page.locator(SAYS)).to_have_text("answered: 3 columns, seed 0")
    expect(page.locator(f"{ROOT} .rwkvlab-earlier .rwkvlab-answers")).to_contain_text("去悉尼要带什么钱?")
    page.get_by_role("button", name="copy code").click()
    code = page.locator(f"{ROOT} .rwkvlab-code pre")
    expect(code).to_contain_text("lab.widgets.Playground(model, shelf, question='1+1等于几?'")
    code.scroll_into_view_if_needed()
    notebook.shot("playground-end")
