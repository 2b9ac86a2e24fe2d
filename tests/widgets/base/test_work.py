import subprocess
import sys
import threading
import time

import pytest

from rwkvlab.errors import ArgError
from rwkvlab.widgets.base.work import EVERY, Work, seconds

SOON = 10.0  # seconds that anything here may take on a loaded machine


@pytest.fixture
def work():
    work = Work()
    yield work
    work.close()
    assert work.wait(SOON)


def stop_button(work):
    return work.children[0]


def test_a_job_says_how_far_it_is_and_what_came_out(work):
    seen = []
    work.caption.observe(lambda change: seen.append(change["new"]), "text")

    def job(report):
        assert work.running and not stop_button(work).disabled
        report(4, 4, "counting")
        return "four counted"

    work.start(job, "about to count")
    assert work.wait(SOON)
    assert seen == ["about to count", "counting · 100%", "four counted"]
    assert not work.running and stop_button(work).disabled and work.error is None


def test_a_part_of_a_job_counts_as_its_share(work):
    seen = []
    work.caption.observe(lambda change: seen.append(change["new"]), "text")
    work.start(lambda report: [report.part(at, 2, "ab"[at])(1, 1) or time.sleep(2 * EVERY) for at in range(2)])
    assert work.wait(SOON)
    assert seen == ["working", "a · 50%", "b · 100%", "done"]


def test_stop_ends_a_job_within_a_third_of_a_second(work):
    began = threading.Event()

    def job(report):
        began.set()
        while True:
            report(1, 1000)
            time.sleep(0.005)

    work.start(job)
    assert began.wait(SOON)
    start = time.monotonic()
    stop_button(work).click()
    assert work.wait(SOON) and time.monotonic() - start < 0.3
    assert work.caption.text == "stopped" and work.error is None


def test_an_error_is_shown_as_text_and_the_next_job_runs(work):
    def fails(report):
        raise ArgError("<b>no</b> $x$")

    work.start(fails)
    assert work.wait(SOON)
    assert isinstance(work.error, ArgError) and work.caption.trouble
    assert "<b>" not in work.caption.value and "&lt;b&gt;no&lt;/b&gt;" in work.caption.value
    work.start(lambda report: "fine")
    assert work.wait(SOON)
    assert work.error is None and (work.caption.text, work.caption.trouble) == ("fine", False)


def test_even_what_is_no_exception_is_caught(work):
    def fails(report):
        raise SystemExit(3)

    work.start(fails)
    assert work.wait(SOON) and isinstance(work.error, SystemExit)
    work.start(lambda report: "fine")
    assert work.wait(SOON) and work.caption.text == "fine"


def test_of_a_thousand_clicks_one_job_is_left_running(work):
    running, most, ran, lock = set(), [0], [], threading.Lock()

    def job_of(number):
        def job(report):
            with lock:
                running.add(number)
                most[0] = max(most[0], len(running))
                ran.append(number)
            try:
                while number < 999 or time.monotonic() < until:
                    report(0, 1)
                    time.sleep(0.001)
            finally:
                with lock:
                    running.discard(number)

        return job

    until = time.monotonic() + 60
    for number in range(1000):
        work.start(job_of(number))
    for _ in range(1000):
        if running == {999}:
            break
        time.sleep(0.01)
    assert running == {999} and most == [1] and ran[-1] == 999
    assert sum(thread.name == "rwkvlab-later" for thread in threading.enumerate()) == 1
    work.stop()
    assert work.wait(SOON) and not running


def test_who_watches_running_may_start_the_next_job(work):
    left = [3]

    def again(change):
        if not change["new"] and left[0]:
            left[0] -= 1
            work.start(lambda report: None)

    work.observe(again, "running")
    work.start(lambda report: None)
    for _ in range(500):
        if work.wait(SOON) and not left[0]:
            break
        time.sleep(0.01)
    assert left == [0] and not work.running


def test_stop_where_nothing_runs_changes_nothing(work):
    work.stop()
    assert work.wait(0) and not work.running
    work.start(lambda report: "fine")
    assert work.wait(SOON) and work.caption.text == "fine"


def test_a_program_that_ends_does_not_wait_for_a_job_for_long():
    code = (
        "import time\n"
        "from rwkvlab.widgets.base.work import Work\n"
        "work = Work()\n"
        "def job(report):\n"
        "    print('began', flush=True)\n"
        "    while True:\n"
        "        report(0, 1)\n"
        "        time.sleep(0.01)\n"
        "work.start(job)\n"
        "time.sleep(0.5)\n"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert out.stdout == "began\n" and out.stderr == ""


@pytest.mark.parametrize(("left", "words"), [(0.4, "0 s"), (90, "90 s"), (150, "2 min"), (9000, "2 h")])
def test_a_duration_reads_as_people_say_it(left, words):
    assert seconds(left) == words
