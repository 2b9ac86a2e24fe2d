"""A person tunes a state in JupyterLab: sees the curve grow, stops, saves, makes a mistake, runs again, reads it."""

import json
import re

CELLS = [
    "import torch, rwkvlab as lab\nfrom rwkvlab.widgets import TunePanel\ntorch.set_num_threads(1)",
    "model, _ = lab.bundled('micro')\n"
    "words = ['bca', 'fed', 'cab', 'hgi', 'dca', 'bfa', 'gac', 'ibe', 'ahd', 'cgb']\n"
    "pairs = [(f'{word}>', ''.join(sorted(word))) for word in words] * 2",
    "panel = TunePanel(model, pairs, steps=100_000, lr=0.01); panel",
]
NUMBERS = ".rwkvlab-tune-numbers .rwkvlab-caption"


def test_a_person_tunes_stops_saves_and_tunes_again(open_notebook, expect):
    notebook = open_notebook(CELLS, viewport={"width": 1100, "height": 1150}).run_all()
    assert notebook.errors() == [] and notebook.stderr() == []
    page = notebook.page
    panel = page.locator(".rwkvlab-tune")
    expect(panel.locator(".rwkvlab-tune-plan")).to_contain_text("18 examples to train on, 2 held out")
    expect(panel.locator(".rwkvlab-tune-plan")).to_contain_text("MB beside the weights")
    panel.locator(".rwkvlab-start").click()
    # the curve grows
    expect(panel.locator(NUMBERS)).to_contain_text("of 100000 · loss ")
    first, picture = panel.locator(NUMBERS).inner_text(), panel.locator(".rwkvlab-picture img").get_attribute("src")
    expect(panel.locator(NUMBERS)).not_to_have_text(first)
    expect(panel.locator(".rwkvlab-picture img")).not_to_have_attribute("src", picture)
    step = [int(re.match(r"step (\d+) of", text)[1]) for text in (first, panel.locator(NUMBERS).inner_text())]
    assert step[0] < step[1]
    assert panel.locator(".rwkvlab-start").is_disabled()
    expect(panel.locator(".rwkvlab-tune-answers th", has_text="from the state after")).to_be_visible()
    assert notebook.pixels(".rwkvlab-picture img").blue > 200, "the line of the batches"
    notebook.shot("tuning-light")
    # Stop, from the keyboard
    panel.locator(".rwkvlab-stop").focus()
    page.keyboard.press("Enter")
    expect(panel.locator(".rwkvlab-work .rwkvlab-caption")).to_contain_text("kept: tuned: ")
    said = panel.locator(".rwkvlab-work .rwkvlab-caption").inner_text()
    assert notebook.run("print(panel.state.card.recipe)").strip() in said
    # Save
    panel.locator(".rwkvlab-save").click()
    expect(panel.get_by_text(re.compile(r"^saved as .*rwkv-x070-tuned\.safetensors, [\d.]+ KiB"))).to_be_visible()
    assert (
        notebook.run("print(torch.equal(lab.load_state('rwkv-x070-tuned.safetensors').wkv, panel.state.wkv))")
        == "True\n"
    )
    # a path that is wrong: it says why, and the state is still there
    panel.get_by_role("button", name="a JSONL file").click()
    box = panel.locator(".rwkvlab-path input")
    box.fill("nowhere.jsonl")
    box.press("Enter")
    expect(panel.locator(".rwkvlab-tune-plan")).to_contain_text("nowhere.jsonl")
    panel.locator(".rwkvlab-start").click()
    expect(panel.locator(".rwkvlab-work .rwkvlab-caption")).to_contain_text("PathError: ")
    assert notebook.run("print(panel.state is not None, type(panel.work.error).__name__)") == "True PathError\n"
    # the right path, fewer steps
    lines = [json.dumps({"text": text}) for text in ("bca>abc", "fed>def", "cab>abc")]
    (notebook.folder / "排序.jsonl").write_text("\n".join(lines), "utf-8")
    box.fill("排序.jsonl")
    box.press("Enter")
    expect(panel.locator(".rwkvlab-tune-plan")).to_contain_text("2 examples to train on, 1 held out")
    panel.locator(".rwkvlab-steps input").fill("5")
    panel.locator(".rwkvlab-steps input").press("Enter")
    panel.locator(".rwkvlab-start").click()
    expect(panel.locator(".rwkvlab-work .rwkvlab-caption")).to_contain_text("done; tuned: 5 steps")
    expect(panel.locator(NUMBERS)).to_contain_text("step 5 of 5 · loss ")
    code = notebook.run("print(panel.tune_code)").strip()
    assert code.startswith("lab.tune(model, lab.read_examples('排序.jsonl'), steps=5")
    assert notebook.run(f"print(torch.equal({code}.wkv, panel.state.wkv))") == "True\n"
    page.mouse.move(0, 0)
    panel.scroll_into_view_if_needed()


def test_pasted_lines_are_tuned_on_in_the_dark_theme(open_notebook, expect):
    notebook = open_notebook([CELLS[0], CELLS[1], "panel = TunePanel(model, steps=4); panel"], theme="dark").run_all()
    panel = notebook.page.locator(".rwkvlab-tune")
    expect(panel.locator(".rwkvlab-tune-plan")).to_contain_text("no examples yet")
    panel.locator(".rwkvlab-text textarea").fill("bca => abc\nfed => def\n<b>hgi</b> => ghi\nno answer")
    panel.locator(".rwkvlab-seed input").focus()
    expect(panel.locator(".rwkvlab-tune-plan")).to_contain_text("line 4: need question => answer")
    panel.locator(".rwkvlab-text textarea").fill("bca => abc\nfed => def\n<b>hgi</b> => ghi")
    panel.locator(".rwkvlab-seed input").focus()
    # ipywidgets holds a change back while the kernel is busy, and a click overtakes it
    expect(panel.locator(".rwkvlab-tune-plan")).to_contain_text("2 examples to train on, 1 held out")
    panel.locator(".rwkvlab-start").click()
    expect(panel.locator(".rwkvlab-work .rwkvlab-caption")).to_contain_text("done; tuned: 4 steps")
    expect(panel.locator(".rwkvlab-tune-answers th", has_text="from the state after 4 steps")).to_be_visible()
    assert notebook.pixels(".rwkvlab-picture img").red > 200, "the line of what is held out"
    panel.locator(".rwkvlab-copy").nth(1).click()
    expect(panel.locator(".rwkvlab-code pre").nth(1)).to_contain_text("lab.tune(model, [{'messages': ")
    assert notebook.run("print(panel.state.card.template)") == "world\n"
