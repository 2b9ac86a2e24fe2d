"""A person looks into a state of a 7B model in these tests: click, arrow keys, hover, two states, light and dark."""

import json
import statistics

import numpy as np

STATES = """
import torch
import rwkvlab as lab
from rwkvlab.widgets import StateInspector
generator = torch.Generator().manual_seed(0)
wkv = torch.randn(32, 64, 64, 64, generator=generator) * torch.linspace(0.2, 1, 32)[:, None, None, None]
wkv[7, 20] = 0
wkv[7, 20, 8:16, 40:56] = 1.0  # value channels 8 to 15, key channels 40 to 55
wkv[7, 20, 30:40, 2:10] = -1.0
state = lab.State(wkv).named("emoji")
other = lab.State(wkv + 0.3 * torch.randn(32, 64, 64, 64, generator=generator)).named("文言文 <b>")
"""
OPEN = "inspector = StateInspector(state, at=(3, 5)); inspector"
CAPTION = ".rwkvlab-inspector-caption .rwkvlab-caption"
SHOWN = """([at, number]) => {
    const root = [...document.querySelectorAll(".rwkvlab-heads")].pop();
    return root?.dataset.shown === at && root.dataset.states === number;
}"""
READ = """canvas => {
    const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
    return [canvas.width, canvas.height, [...data]];
}"""
# from a click to the frame after the one in which that head was painted
TIMES = """async places => {
    const root = document.querySelector(".rwkvlab-heads");
    const stage = root.querySelector(".rwkvlab-overview .rwkvlab-stage");
    const canvas = stage.querySelector("canvas"), times = [];
    for (const [layer, head] of places) {
        const box = canvas.getBoundingClientRect(), wanted = `${layer},${head}`;
        const [x, y] = [(head + 0.5) * box.width / 64, (layer + 0.5) * box.height / 32];
        const painted = new Promise(done => {
            const look = new MutationObserver(() => {
                if (root.dataset.shown !== wanted) return;
                look.disconnect();
                requestAnimationFrame(() => setTimeout(() => done(performance.now())));
            });
            look.observe(root, {attributes: true});
        });
        const start = performance.now();
        stage.dispatchEvent(new MouseEvent("click", {bubbles: true, clientX: box.left + x, clientY: box.top + y}));
        times.push(await painted - start);
        await new Promise(done => setTimeout(done, 250));
    }
    return times;
}"""


def wait_for(notebook, layer, head, states=1):
    notebook.page.wait_for_function(SHOWN, arg=[f"{layer},{head}", str(states)])


def click(notebook, layer, head):
    canvas = notebook.page.locator(".rwkvlab-overview canvas.rwkvlab-canvas").first
    box = canvas.bounding_box()
    canvas.click(position={"x": (head + 0.5) * box["width"] / 64, "y": (layer + 0.5) * box["height"] / 32})


def colours(matrix, limit, table):
    """The colours [V,K,3] that a matrix is to have."""
    shade = np.floor((matrix.astype(float) + limit) * (256 / (2 * limit))).clip(0, 255).astype(int)
    return table[shade]


def test_a_person_clicks_a_head_walks_on_with_the_keys_and_reads_numbers(open_notebook, expect):
    from matplotlib import colormaps

    notebook = open_notebook([STATES, OPEN], viewport={"width": 1280, "height": 1200}).run_all()
    page, caption = notebook.page, notebook.page.locator(CAPTION)
    wait_for(notebook, 3, 5)
    expect(caption).to_contain_text("layer 3, head 5\nemoji: norm")

    click(notebook, 7, 20)
    wait_for(notebook, 7, 20)
    expect(caption).to_contain_text("layer 7, head 20\nemoji: norm 14.4")
    seen = page.locator(".rwkvlab-matrix canvas.rwkvlab-canvas").evaluate(READ)
    pixels = np.array(seen[2]).reshape(64, 64, 4)
    names = {}
    exec(STATES, names)
    table = np.array(colormaps["RdBu_r"](range(256), bytes=True))[:, :3]
    assert np.array_equal(pixels[..., :3], colours(names["wkv"][7, 20].numpy(), 1.0, table))
    # one block said by hand: rows are value channels, columns key channels
    red, blue = table[255].tolist(), table[0].tolist()
    assert pixels[8, 55, :3].tolist() == pixels[15, 40, :3].tolist() == red != pixels[40, 8, :3].tolist()
    assert pixels[30, 2, :3].tolist() == pixels[39, 9, :3].tolist() == blue
    counts = notebook.pixels(".rwkvlab-matrix canvas.rwkvlab-canvas")
    assert (counts.red, counts.blue, counts.total) == (8 * 16, 10 * 8, 64 * 64)

    # the keys
    stage = page.locator(".rwkvlab-overview .rwkvlab-stage")
    expect(stage).to_be_focused()
    for key, place in (
        *(("ArrowRight", (7, 21)), ("ArrowDown", (8, 21)), ("ArrowLeft", (8, 20)), ("ArrowUp", (7, 20))),
        *(("End", (7, 63)), ("PageDown", (15, 63)), ("Home", (15, 0)), ("ArrowLeft", (15, 0)), ("PageUp", (7, 0))),
        *(("Control+End", (31, 63)), ("Control+Home", (0, 0))),
    ):
        page.keyboard.press(key)
        wait_for(notebook, *place)
    cell = page.locator("#" + stage.get_attribute("aria-activedescendant"))
    page.keyboard.press("ArrowDown")
    wait_for(notebook, 1, 0)
    expect(cell).to_have_attribute("aria-colindex", "1")
    assert cell.get_attribute("role") == "gridcell" and "layer 1, head 0" in cell.get_attribute("aria-label")
    assert cell.locator("..").get_attribute("aria-rowindex") == "2" and stage.get_attribute("aria-rowcount") == "32"
    outline = "element => getComputedStyle(element).outlineStyle + getComputedStyle(element).outlineWidth"
    assert stage.evaluate(outline) == "solid3px", "the focus is seen"
    notebook.shot("inspector-one")

    # hover
    click(notebook, 7, 20)
    wait_for(notebook, 7, 20)
    line = page.locator(".rwkvlab-overview .rwkvlab-line")
    expect(line).to_have_text("layer 7, head 20: 14.42")
    matrix = page.locator(".rwkvlab-matrix canvas.rwkvlab-canvas")
    width = matrix.bounding_box()["width"]
    matrix.hover(position={"x": 3.5 * width / 64, "y": 31.5 * width / 64})
    expect(page.locator(".rwkvlab-matrix .rwkvlab-line")).to_have_text("value channel 31, key channel 3: −1")

    # Python reads it, and sets it
    assert notebook.run("print(inspector.selected)") == "(7, 20)\n"
    assert notebook.run("inspector.selected = (30, 1)") == ""
    wait_for(notebook, 30, 1)
    expect(caption).to_contain_text("layer 30, head 1\n")
    expect(page.locator(".rwkvlab-inspector .rwkvlab-picture img")).to_have_attribute(
        "alt", "singular values of layer 30, head 1"
    )
    page.get_by_role("button", name="copy code").click()
    expect(page.locator(".rwkvlab-code pre")).to_have_text("lab.widgets.StateInspector(state, at=(30, 1))")
    assert notebook.errors() == [] and notebook.stderr() == []


def test_a_head_is_drawn_within_60_ms_of_a_click(open_notebook):
    notebook = open_notebook([STATES, OPEN]).run_all()
    wait_for(notebook, 3, 5)
    notebook.page.wait_for_timeout(1500)
    medians = []
    for turn in range(3):  # other work on this machine may disturb one
        places = [[(at * 7 + turn) % 32, (at * 13 + 5 * turn) % 64] for at in range(1, 25)]
        times = notebook.page.evaluate(TIMES, places)
        medians.append(statistics.median(times))
        print("click to drawn head, ms:", json.dumps(sorted(round(x) for x in times)), "median", round(medians[-1]))
        if medians[-1] <= 60:
            break
    assert min(medians) <= 60, medians


def test_two_states_are_seen_side_by_side_in_either_theme(open_notebook, expect, theme):
    notebook = open_notebook(
        [STATES, "inspector = StateInspector(state, other, at=(7, 20)); inspector"],
        theme=theme,
        viewport={"width": 1400, "height": 1300},
    ).run_all()
    wait_for(notebook, 7, 20, states=3)
    page = notebook.page
    expect(page.locator(CAPTION)).to_contain_text("文言文 <b>: norm")
    expect(page.locator(".rwkvlab-matrix .rwkvlab-name")).to_have_text(
        ["emoji", "文言文 <b>", "difference: second − first"]
    )
    expect(page.locator(".rwkvlab-heads")).to_have_attribute("data-dark", str(theme == "dark").lower())
    middle = page.locator(".rwkvlab-matrix canvas.rwkvlab-canvas").first.evaluate(READ)[2][:3]
    assert (sum(middle) < 150) == (theme == "dark"), "zero is dark on a dark page, and light on a light one"
    ends = page.locator(".rwkvlab-matrix .rwkvlab-bar").all_inner_texts()
    assert len(ends) == 3 and len(set(ends)) == 1, "one scale for all three"
    page.get_by_label("the difference on a scale of its own").check()
    expect(page.locator(".rwkvlab-matrix .rwkvlab-end:last-child").last).not_to_have_text(ends[0].split("\n")[-1])
    # nothing sticks out of the cell
    width = page.evaluate("e => [e.scrollWidth, e.clientWidth]", page.locator(".rwkvlab-heads").element_handle())
    assert width[0] <= width[1], width
    expect(page.locator(".rwkvlab-inspector .rwkvlab-picture img")).to_be_visible()
    notebook.shot(f"inspector-two-{theme}")
    assert notebook.errors() == [] and notebook.stderr() == []
