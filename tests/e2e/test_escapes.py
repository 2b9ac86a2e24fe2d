"""All widgets in JupyterLab, with programs as names of states: nothing is run, asked for or typeset; all is read."""

CELLS = [
    """
import torch
import rwkvlab as lab
RUN = "window.__pwned = (window.__pwned || 0) + 1"
NAMES = [f"<img src=x onerror='{RUN}'>", f'"><svg onload="{RUN}">', f"</style></script><script>{RUN}</script>",
    "$\\\\href{javascript:alert(1)}{x}$ \\\\(y\\\\)", "![x](https://a.example/x.png)", "\\x1b[31m\\u202e文言文"]
model, shelf = lab.bundled()
states = {name: state.named(name) for name, state in zip(NAMES, (2 * shelf[old] for old in shelf))}
first, second = list(states)[:2]""",
    "states[first]",
    "picker = lab.widgets.StatePicker(states)\npicker",
    "mixer = lab.widgets.StateMixer(states, model, names=[first, second], prompt=NAMES[0], max_tokens=4)\nmixer",
    "inspector = lab.widgets.StateInspector(first, second, shelf=states)\ninspector",
    "lab.widgets.StateGrid(states[first], states[second])",
    "play = lab.widgets.Playground(model, states, sampling={'max_tokens': 4})\nplay.ask(NAMES[1]).wait(60)\nplay",
    "panel = lab.widgets.TunePanel(model, [(name, name) for name in NAMES], steps=2)\npanel",
    "lab.compare(model, NAMES, states, template='raw', max_tokens=4)",
]
WIDGETS = ("picker", "mixer", "inspector", "playground")
# in texts that are printed JupyterLab itself makes links of addresses
MADE = """() => [...document.querySelectorAll('.jp-OutputArea-output')].flatMap(area => [...area.querySelectorAll('*')])
    .filter(element => !element.closest(".jp-RenderedText"))
    .filter(element => element.matches("script, iframe, object, embed, a[href], mjx-container, svg[onload]")
        || [...element.attributes].some(one => one.name.startsWith("on"))
        || (element.matches("img") && !element.src.startsWith("data:image/png") && !element.src.startsWith("blob:")))
    .map(element => element.outerHTML.slice(0, 200))"""


def test_nothing_in_a_page_full_of_widgets_is_run_asked_for_or_typeset(open_notebook, expect):
    notebook = open_notebook(CELLS).run_all()
    page = notebook.page
    assert notebook.errors() == [] and notebook.stderr() == []
    for name in WIDGETS:
        expect(page.locator(f".rwkvlab-{name}").first).to_be_visible()
    # the names are read as they are, and so is the Chinese one
    expect(page.locator(".rwkvlab-picker").first).to_contain_text("<img src=x onerror=")
    expect(page.locator(".rwkvlab-picker").first).to_contain_text("文言文")
    expect(page.locator(".rwkvlab-playground").first).to_contain_text("<svg onload=")
    notebook.run("picker.name = second; mixer.state = states[first]; inspector.state = NAMES[3]; panel.start()")
    expect(page.locator(".rwkvlab-picker .rwkvlab-caption").first).to_contain_text("<svg onload=")
    notebook.run("panel.wait(60); play.ask(NAMES[3]).wait(60)")
    expect(page.locator(".rwkvlab-playground").first).to_contain_text("\\href{javascript:alert(1)}")
    page.wait_for_timeout(500)  # what would be run or typeset has been by now
    assert page.evaluate("window.__pwned") is None
    made = page.evaluate(MADE)
    assert not made, made
    # dialogs, errors in JavaScript and requests elsewhere fail every test of this folder


def test_the_page_would_have_seen_it(open_notebook):
    name = "<img src=x onerror='window.__pwned = 1'>"
    notebook = open_notebook([f"import ipywidgets\nipywidgets.HTML({name!r})"]).run_all()
    notebook.page.wait_for_function("window.__pwned === 1")
    assert notebook.page.evaluate(MADE)
