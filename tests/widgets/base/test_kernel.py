"""In a real kernel: a widget's thread ends with it, also where it is shut down or restarted in the middle."""

import os
import time

import pytest
from jupyter_client.manager import start_new_kernel

SOON = 60.0  # seconds that anything here may take on a loaded machine
BEGIN = """
import os, threading, torch
torch.set_num_threads(1)
import rwkvlab as lab
model, shelf = lab.bundled()
panel = lab.widgets.TunePanel(model, [("bca>", "abc"), ("fed>", "def")] * 8, steps=1_000_000, held_out=0.0)
panel.start()
while panel.job is None or not panel.job.steps:
    threading.Event().wait(0.05)
print(os.getpid())
"""


@pytest.fixture
def kernel(tmp_path):
    manager, client = start_new_kernel(cwd=str(tmp_path), startup_timeout=120)
    yield manager, client
    client.stop_channels()
    if manager.is_alive():
        manager.shutdown_kernel(now=True)


def printed(client, code):
    said = []
    client.execute_interactive(code, timeout=SOON, output_hook=lambda message: said.append(message["content"]))
    wrong = [one for one in said if "ename" in one]
    assert not wrong, wrong[0]["evalue"]
    return "".join(one.get("text", "") for one in said)


def is_alive(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    with open(f"/proc/{process}/stat") as file:
        return file.read().rsplit(")", 1)[1].split()[0] != "Z"


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="needs /proc to look at processes")
def test_a_kernel_that_is_shut_down_in_the_middle_leaves_nothing_behind(kernel, tmp_path):
    manager, client = kernel
    process = int(printed(client, BEGIN).split()[-1])
    assert is_alive(process)
    began = time.monotonic()
    manager.shutdown_kernel(now=False)
    assert not is_alive(process) and time.monotonic() - began < 10
    assert os.listdir(tmp_path) == []  # no file half written either


def test_a_kernel_is_free_while_widgets_work(kernel):
    _, client = kernel
    printed(client, BEGIN)
    began = time.monotonic()
    assert printed(client, "print(6 * 7)") == "42\n" and time.monotonic() - began < 5
    assert printed(client, "panel.stop(); print(panel.wait(20), panel.work.error, panel.state)").startswith(
        "True None <S"
    )
    # what the panel still looks at, now that the run has ended, ends by itself
    threads = "[thread for thread in threading.enumerate() if 'rwkvlab' in thread.name]"
    left = f"for _ in range(400):\n    left = {threads}\n    left and threading.Event().wait(0.05)\nprint(left)"
    assert printed(client, left) == "[]\n"
