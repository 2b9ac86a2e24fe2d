"""A person mixes states: sliders move the picture, the answer comes at release, Stop stops, a bad file is said."""

import pytest

CELLS = [
    """
import pathlib
import rwkvlab as lab
from rwkvlab.widgets import StateMixer
model, shelf = lab.bundled("rwkv7")
short = {name.split("-")[2].split("_")[0]: shelf[name] for name in shelf}
pathlib.Path("states").mkdir()
for name in ("emoji", "json", "classical", "plain"):
    lab.save_state(short[name], f"states/{name}.pth");""",
    "mixer = StateMixer('states', model, names=('plain', 'emoji'))\nmixer",
]
MIXTURE = ".rwkvlab-mixer > .rwkvlab-says .rwkvlab-caption"
ANSWER = ".rwkvlab-answer .rwkvlab-caption"
WORK = ".rwkvlab-work .rwkvlab-caption"
QUESTION = "How do I travel from Paris to Tokyo?"


@pytest.fixture
def opened(open_notebook, expect):
    def open_(**options):
        notebook = open_notebook(CELLS, **options).run_all()
        assert notebook.errors() == [] and notebook.stderr() == []
        expect(notebook.page.locator(MIXTURE)).to_have_text("mixture: lerp(plain, emoji, 0.5)")
        return notebook

    return open_


def test_a_slider_leads_from_one_state_to_the_other_and_the_answer_follows(opened, expect, theme):
    notebook = opened(theme=theme)
    page = notebook.page
    picture = page.locator(".rwkvlab-mixer .rwkvlab-picture img")
    before = picture.get_attribute("src")
    t = page.locator(".rwkvlab-t input[type=range]")
    t.focus()
    page.keyboard.press("ArrowRight")
    expect(page.locator(MIXTURE)).to_have_text("mixture: lerp(plain, emoji, 0.51)")
    assert picture.get_attribute("src") != before
    page.locator(".rwkvlab-prompt input").fill(QUESTION)
    page.locator(".rwkvlab-prompt input").press("Enter")
    expect(page.locator(WORK)).to_contain_text("answered: ")
    notebook.run("""
asked, write = [], mixer._answer.write
mixer._answer.write = lambda *args: (asked.append(1), write(*args))[1]""")
    # while the hand moves the picture follows, and nothing is generated before it lets go
    t.evaluate("input => { input.value = 0.9; input.dispatchEvent(new Event('input', {bubbles: true})); }")
    expect(page.locator(MIXTURE)).to_have_text("mixture: lerp(plain, emoji, 0.9)")
    page.wait_for_timeout(700)
    assert notebook.run("print(asked)") == "[]\n"
    t.evaluate(
        "input => { input.value = 1; input.dispatchEvent(new Event('input', {bubbles: true})); "
        "input.dispatchEvent(new Event('change', {bubbles: true})); }"
    )
    expect(page.locator(MIXTURE)).to_have_text("mixture: lerp(plain, emoji, 1)")
    alone = notebook.run(
        f"print(model.chat({QUESTION!r}, lab.load_state('states/emoji.pth', model), temperature=0.0, "
        "presence=0.0, frequency=0.0, max_tokens=60).text)"
    )
    expect(page.locator(ANSWER)).to_have_text(alone.strip())
    expect(page.locator(WORK)).to_contain_text("answered: ")
    assert notebook.run("print(asked)") == "[1]\n"
    page.locator(".rwkvlab-mixer").scroll_into_view_if_needed()
    notebook.shot(f"mixer-{theme}")


def test_states_are_added_weighed_and_removed(opened, expect):
    notebook = opened()
    page = notebook.page
    page.locator(".rwkvlab-add").click()
    expect(page.locator(MIXTURE)).to_have_text("mixture: 0.5 * plain + 0.5 * emoji + 0 * classical")
    for row, number in ((2, "1"), (0, "0.5")):
        box = page.locator(".rwkvlab-mixer-row input[type=number]").nth(row)
        box.fill(number)
        box.press("Enter")
    expect(page.locator(MIXTURE)).to_have_text("mixture: 0.25 * plain + 0.25 * emoji + 0.5 * classical")
    notebook.shot("mixer-three")
    page.locator(".rwkvlab-normal input").click()
    expect(page.locator(MIXTURE)).to_contain_text("1 * classical")
    page.locator(".rwkvlab-mixer-row .rwkvlab-remove").nth(1).click()
    expect(page.locator(".rwkvlab-mixer-row")).to_have_count(2)
    assert notebook.run("print(mixer.recipe['weights'], mixer.recipe['method'])") == (
        "{'plain': 0.5, 'classical': 1.0} sum\n"
    )
    notebook.run("mixer.recipe = {'weights': {'json': 1.0}, 'gain': 0.5}")
    expect(page.locator(MIXTURE)).to_have_text("mixture: 0.5 * 1 * json")
    expect(page.locator(".rwkvlab-gain input[type=number]")).to_have_value("0.5")
    page.locator(".rwkvlab-save-as input").fill("混合.safetensors")
    for words in ("saved as ", "is there already"):
        page.locator(".rwkvlab-save").click()
        expect(page.locator(".rwkvlab-save-row .rwkvlab-caption")).to_contain_text(words)
    saved = "import torch; print(torch.equal(lab.load_state('混合.safetensors', model).wkv, mixer.state.wkv))"
    assert notebook.run(saved) == "True\n"


def test_stop_and_a_file_gone_bad_leave_a_mixer_that_works(opened, expect):
    notebook = opened()
    page = notebook.page
    notebook.run("""
import time
whole = model.chat
def slow(*args, on_text, **options):
    return whole(*args, on_text=lambda piece: (time.sleep(0.3), on_text(piece)), **options)
class Slow:
    chat = staticmethod(slow)
mixer._answer.model = Slow()
pathlib.Path('states/classical.pth').write_bytes(b'gone bad')
print('slow')""")
    page.locator(".rwkvlab-prompt input").fill(QUESTION)
    page.locator(".rwkvlab-prompt input").press("Enter")
    expect(page.locator(WORK)).to_contain_text("writing")
    page.locator(".rwkvlab-work .rwkvlab-stop").click()
    expect(page.locator(WORK)).to_have_text("stopped")
    expect(page.locator(ANSWER)).to_contain_text("(stopped)")
    page.locator(".rwkvlab-add").click()
    expect(page.locator(MIXTURE)).to_contain_text("classical")
    expect(page.locator(MIXTURE)).to_contain_text("all is as it was")
    notebook.shot("mixer-trouble")
    page.locator(".rwkvlab-t input[type=range]").focus()
    page.keyboard.press("End")
    expect(page.locator(MIXTURE)).to_have_text("mixture: lerp(plain, emoji, 1)")
    assert notebook.run("print(mixer.recipe['weights'])") == "{'plain': 0.0, 'emoji': 1.0}\n"
