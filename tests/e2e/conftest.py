"""A real JupyterLab and a real Chromium for tests of what a person sees and clicks.

Fixtures
    open_notebook(cells_or_path, *, theme="light", **context)   opens a notebook and waits for its kernel; returns a
        `Notebook` (see the class). `cells_or_path` is a list of code cells, or the path of an .ipynb, which is copied
        (its metadata must name a kernel, or JupyterLab asks for one); `theme` is "light" or "dark"; `context` goes to
        playwright's `new_context` (viewport={…}, locale="zh-CN", …). May be called several times. When the test ends
        it fails if any page asked for anything that is not on this machine, raised an error in JavaScript, or opened
        a dialog; the kernels are shut down.
    theme       "light", then "dark": a test that takes it runs twice.
    expect      playwright's `expect`, with 30 s of patience: wait for WHAT is shown (a caption), never for a change.
    jupyter     the running JupyterLab: `.url`, `.token`, `.folder` (what it serves), `.get(path)`, `.delete(path)`.
    rwkvlab_lab the same, as `rwkvlab lab` starts it in an empty folder.
    browser     playwright's Browser.

    def test_a_slider_moves_the_picture(open_notebook, expect):
        notebook = open_notebook(["import rwkvlab as lab", "widget = …; widget"]).run_all()
        assert notebook.errors() == [] and notebook.stderr() == []
        expect(notebook.page.locator(".rwkvlab-caption")).to_have_text("…")
        assert notebook.pixels("img").red > 500
        assert notebook.run("print(widget.value)") == "3\\n"

Where Chromium or playwright is missing these tests are skipped, with what to install; with CI=true they fail.
RWKVLAB_CHROMIUM names another browser; RWKVLAB_SHOTS a folder for a screenshot of every page at the end of its test.
"""

import json
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple
from urllib.parse import quote, urlsplit
from urllib.request import ProxyHandler, Request, build_opener

import nbformat
import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
INSTALL = "apt-get install chromium fonts-noto-cjk (or set RWKVLAB_CHROMIUM to a Chromium or Chrome)"
QUIET = "--disable-gpu --disable-dev-shm-usage --disable-quic --no-first-run --disable-background-networking --no-pings"
QUIET += " --disable-component-update --disable-sync --disable-default-apps --disable-domain-reliability"
SETTINGS = {
    "@jupyterlab/apputils-extension:notification": {
        **{"fetchNews": "false", "checkForUpdates": False, "doNotDisturbMode": True},
    },
    # every cell is in the page, also those far below
    "@jupyterlab/notebook-extension:tracker": {"windowingMode": "none"},
}
DIRECTORIES = {
    "JUPYTER_CONFIG_DIR": "config",
    "JUPYTER_DATA_DIR": "data",
    "JUPYTER_RUNTIME_DIR": "runtime",
    "JUPYTERLAB_SETTINGS_DIR": "settings",
    "JUPYTERLAB_WORKSPACES_DIR": "workspaces",
    "IPYTHONDIR": "ipython",
}
PANEL = "window.jupyterapp.shell.currentWidget"
READY = """() => {
    const session = window.jupyterapp?.shell?.currentWidget?.sessionContext, kernel = session?.session?.kernel;
    return !!(session?.isReady && kernel && kernel.connectionStatus === "connected" && kernel.status === "idle");
}"""
# the promises of these commands resolve when the last cell is done; a kernel that was never asked says "idle" too
RUN = """async ([last, code, patience]) => {
    const app = window.jupyterapp, panel = app.shell.currentWidget, notebook = panel.content;
    const work = async () => {
        await panel.sessionContext.ready;
        await panel.sessionContext.session.kernel.info;
        if (!last) return await app.commands.execute("notebook:run-all-cells");
        notebook.activeCellIndex = notebook.widgets.length - 1;
        await app.commands.execute("notebook:insert-cell-below");
        notebook.activeCell.model.sharedModel.setSource(code);
        return await app.commands.execute("notebook:run-cell");
    };
    const late = new Promise((_, no) => setTimeout(() => no(new Error(`not done in ${patience} s`)), patience * 1000));
    return await Promise.race([work(), late]);
}"""
CELLS = f"""() => {PANEL}.content.widgets.map(cell => ({{
    type: cell.model.type, n: cell.model.executionCount ?? null, source: cell.model.sharedModel.getSource(),
    outputs: cell.model.type === "code" ? cell.model.sharedModel.outputs : []}}))"""
PIXELS = """async picture => {
    if (picture.tagName === "IMG") await picture.decode();
    const [width, height] = [picture.naturalWidth ?? picture.width, picture.naturalHeight ?? picture.height];
    const pen = new OffscreenCanvas(width, height).getContext("2d"), colours = new Set();
    pen.drawImage(picture, 0, 0);
    const data = pen.getImageData(0, 0, width, height).data;
    let red = 0, blue = 0;
    for (let i = 0; i < data.length; i += 4) {
        if (data[i + 3] > 127 && data[i] > data[i + 2] + 60) red++;
        if (data[i + 3] > 127 && data[i + 2] > data[i] + 60) blue++;
        colours.add((data[i] << 16) | (data[i + 1] << 8) | data[i + 2]);
    }
    return [red, blue, width * height, colours.size];
}"""


class Pixels(NamedTuple):
    """How many pixels of a picture are rather red, rather blue, there at all; how many colours there are."""

    red: int
    blue: int
    total: int
    colours: int


class Notebook:
    """A notebook that is open in JupyterLab: `page` is playwright's Page, `folder` the kernel's current folder."""

    def __init__(self, page, folder):
        self.page, self.folder = page, folder
        # what the page did that no page should: a test that does it on purpose empties the list
        self.outside, self.js_errors, self.dialogs = [], [], []

    def run_all(self, patience=120):
        """Run every cell and wait until the last is done (at most `patience` seconds); returns this notebook."""
        self.page.evaluate(RUN, [False, "", patience])
        self.page.wait_for_function(READY)
        return self

    def run(self, code, patience=60):
        """Run `code` in a new cell at the end; returns what it printed. An error in it fails the test."""
        self.page.evaluate(RUN, [True, code, patience])
        outputs = self.cells()[-1]["outputs"]
        wrong = [f"{o['ename']}: {o['evalue']}" for o in outputs if o["output_type"] == "error"]
        assert not wrong, f"{code}\n{wrong[0]}"
        return "".join(_text(o) for o in outputs if o.get("name") == "stdout")

    def cells(self):
        """Every cell: a dict of type, n (its prompt number), source and outputs, these as in a notebook's file."""
        return self.page.evaluate(CELLS)

    def errors(self):
        """(prompt number, class, message) of every exception in an output."""
        found = [(c["n"], o) for c in self.cells() for o in c["outputs"] if o["output_type"] == "error"]
        return [(n, o["ename"], o["evalue"]) for n, o in found]

    def stderr(self):
        """Every text that a cell wrote to stderr."""
        return [_text(o) for c in self.cells() for o in c["outputs"] if o.get("name") == "stderr"]

    def pixels(self, selector):
        """Count the pixels of the first canvas or img that `selector` finds."""
        return Pixels(*self.page.locator(selector).first.evaluate(PIXELS))

    def shot(self, name):
        """Write a screenshot NAME.png into $RWKVLAB_SHOTS, if that is set."""
        if folder := os.environ.get("RWKVLAB_SHOTS"):
            path = Path(folder) / (re.sub(r"[^\w.=-]+", "-", name) + ".png")
            path.parent.mkdir(parents=True, exist_ok=True)
            self.page.screenshot(path=path)


def _text(output):
    return output["text"] if isinstance(output["text"], str) else "".join(output["text"])


def _missing(what):
    """Skip, or fail where CI promises that everything is there."""
    (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(what)


@contextmanager
def _running(command, base, served):
    """Run a command that becomes JupyterLab, and knows nothing of the user's own settings, until it is left."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token, url = secrets.token_hex(16), f"http://127.0.0.1:{port}"
    options = ["--no-browser", "--ip=127.0.0.1", f"--port={port}", "--ServerApp.port_retries=0"]
    options += [f"--IdentityProvider.token={token}", "--LabApp.expose_app_in_browser=True"]
    # as a user has it: figures are shown inline; two cores are for two workers
    env = {name: value for name, value in os.environ.items() if name != "MPLBACKEND"}
    env |= {name: str(base / folder) for name, folder in DIRECTORIES.items()} | {"OMP_NUM_THREADS": "1"}
    opener = build_opener(ProxyHandler({}))  # a proxy of the user's is not for this machine

    def ask(method, path):
        headers = {"Authorization": f"token {token}"}
        with opener.open(Request(f"{url}/api/{path}", method=method, headers=headers), timeout=30) as answer:
            return json.loads(answer.read() or "null")

    with open(base / "lab.log", "wb") as log:
        process = subprocess.Popen(
            [sys.executable, *command, *options], stdout=log, stderr=log, env=env, cwd=base, start_new_session=True
        )
    try:
        deadline = time.monotonic() + 120
        while True:
            assert process.poll() is None and time.monotonic() < deadline, (base / "lab.log").read_text()[-3000:]
            try:
                ask("GET", "status")
                break
            except OSError:
                time.sleep(0.25)
        get, delete = (lambda path: ask("GET", path)), (lambda path: ask("DELETE", path))
        yield SimpleNamespace(url=url, token=token, folder=served, get=get, delete=delete)
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


@pytest.fixture(scope="session")
def jupyter(tmp_path_factory):
    """One JupyterLab a process of tests, started when the first test asks for it."""
    base = tmp_path_factory.mktemp("jupyter")
    overrides = base / "config" / "labconfig" / "default_setting_overrides.json"
    overrides.parent.mkdir(parents=True)
    overrides.write_text(json.dumps(SETTINGS))
    (base / "served").mkdir()
    command = ["-m", "jupyterlab", str(base / "served"), "--allow-root", "--LabApp.extension_manager=readonly"]
    with _running(command, base, base / "served") as server:
        yield server


@pytest.fixture
def rwkvlab_lab(tmp_path, browser):
    """What `rwkvlab lab` starts in an empty folder, with the settings of someone who never had a JupyterLab."""
    with _running(["-m", "rwkvlab.cli", "lab"], tmp_path, tmp_path / "rwkvlab-notebooks") as server:
        yield server


# a module, not the session: while it is open, playwright's event loop runs in this thread, and asyncio.run would refuse
@pytest.fixture(scope="module")
def browser():
    """One headless Chromium a module."""
    chromium = os.environ.get("RWKVLAB_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), None)
    if not chromium:
        _missing(f"no Chromium: {INSTALL}")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        _missing("no playwright: pip install playwright (its own browsers are not needed)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=QUIET.split())
        yield browser
        browser.close()


@pytest.fixture
def expect(browser):
    """playwright's expect; a busy machine is given time."""
    from playwright.sync_api import expect

    expect.set_options(timeout=30_000)
    return expect


@pytest.fixture(params=["light", "dark"])
def theme(request):
    """The name of a theme, for open_notebook."""
    return request.param


def _place(cells_or_path, folder):
    """Write the notebook into a new folder of its own; returns its path."""
    folder.mkdir()
    if isinstance(cells_or_path, list):
        cells = [nbformat.v4.new_code_cell(source) for source in cells_or_path]
        kernel = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
        nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata={"kernelspec": kernel}), folder / "test.ipynb")
        return folder / "test.ipynb"
    return Path(shutil.copy(cells_or_path, folder))


def _watch(context, notebook):
    """Refuse and note down whatever leaves this machine; note down errors and dialogs of every page."""

    def inside(url):
        return urlsplit(url).scheme in ("data", "blob") or urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")

    def guard(route):
        if inside(route.request.url):
            return route.continue_()
        notebook.outside.append(route.request.url)
        return route.abort()

    def dialog(shown):
        notebook.dialogs.append(shown.message)
        shown.dismiss()

    def socket_opened(opened):
        if not inside(opened.url):
            notebook.outside.append(opened.url)

    context.route("**/*", guard)
    context.on("weberror", lambda error: notebook.js_errors.append(str(error.error)))
    context.on("dialog", dialog)
    notebook.page.on("websocket", socket_opened)


@pytest.fixture
def open_notebook(browser, jupyter, request):
    """open_notebook(cells_or_path, *, theme="light", **context) -> Notebook, its kernel ready; see the top."""
    opened = []

    def open_(cells_or_path, *, theme="light", **context):
        folder = jupyter.folder / secrets.token_hex(4)
        path = _place(cells_or_path, folder)
        options = {"viewport": {"width": 1280, "height": 900}, "service_workers": "block"} | context
        notebook = Notebook(browser.new_context(**options).new_page(), folder)
        opened.append(notebook)
        page = notebook.page
        _watch(page.context, notebook)
        page.set_default_timeout(60_000)
        where = quote(f"{folder.name}/{path.name}")
        page.goto(f"{jupyter.url}/lab/tree/{where}?reset&token={jupyter.token}", wait_until="domcontentloaded")
        page.wait_for_function(READY, timeout=90_000)
        wanted = {"light": "true", "dark": "false"}[theme]
        # the server keeps the theme that the test before chose
        change = "name => window.jupyterapp.commands.execute('apputils:change-theme', {theme: name})"
        if page.evaluate("document.body.dataset.jpThemeLight") != wanted:
            page.evaluate(change, f"JupyterLab {theme.title()}")
            page.wait_for_function(f"document.body.dataset.jpThemeLight === '{wanted}'")
        return notebook

    yield open_
    for number, notebook in enumerate(opened):
        notebook.shot(f"{request.node.name}-{number}")
        notebook.page.context.close()
    # nothing is left running for the next test
    for session in jupyter.get("sessions"):
        jupyter.delete(f"sessions/{session['id']}")
    for notebook in opened:
        seen = {"left this machine": notebook.outside, "JavaScript": notebook.js_errors, "dialogs": notebook.dialogs}
        assert not any(seen.values()), seen
