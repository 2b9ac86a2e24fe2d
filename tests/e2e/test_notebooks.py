"""The first notebook as a person meets it, in both languages: run all, see both answers, ask on, pick another state."""

from pathlib import Path

import pytest

FOLDER = Path(__file__).resolve().parents[2] / "notebooks"
PLAY = ".rwkvlab-playground"


@pytest.mark.parametrize(("name", "theme"), [("00_start_here", "light"), ("00_start_here.zh", "dark")])
def test_the_first_notebook_answers_and_goes_on(name, theme, open_notebook, expect):
    notebook = open_notebook(FOLDER / f"{name}.ipynb", theme=theme, viewport={"width": 1280, "height": 2400}).run_all()
    assert notebook.errors() == [] and notebook.stderr() == []
    page = notebook.page
    zero, emoji = (page.locator(f"{PLAY} > .rwkvlab-answers td").nth(at) for at in (0, 1))
    expect(zero).to_contain_text("从东京(HND)乘飞机到巴黎(CDG)。")
    expect(emoji).to_contain_text("🇯🇵 东京(HND) ✈️ 🇫🇷 巴黎(CDG)")
    page.locator(PLAY).scroll_into_view_if_needed()
    notebook.shot(f"{name}-answers")
    # the playground goes on from what the notebook asked
    page.locator(f"{PLAY} textarea").fill("Which languages are spoken in Lima and Bangkok?")
    page.locator(PLAY).get_by_role("button", name="Ask").click()
    expect(emoji).to_contain_text("💬")
    assert "💬" in notebook.run("play.wait(); print(play.result.table.text.tolist())")
    # and what is picked is what Python has; the table under the answers links every other notebook
    assert "emoji" in notebook.run("print(picker.name)")
    row = page.locator(".rwkvlab-picker").get_by_text("json_single_round").first
    row.click()
    assert "json" in notebook.run("print(picker.name)")
    links = page.locator(".jp-RenderedMarkdown table a")
    assert links.count() >= 10
    links.last.scroll_into_view_if_needed()
    notebook.shot(f"{name}-end")
