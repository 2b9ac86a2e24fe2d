"""fetch finds what is here before it asks, and says within seconds when nobody answers."""

import hashlib
import http.server
import os
import re
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import rwkvlab.hub
from rwkvlab.errors import PathError
from rwkvlab.hub import fetch

DATA = b"weights" * 1000
FOLDER = str(Path(rwkvlab.hub.__file__).parent)
# the package's own __init__ brings torch along, which this does not need
CODE = f"""
import sys, time, types
sys.modules["rwkvlab"] = types.ModuleType("rwkvlab")
sys.modules["rwkvlab"].__path__ = [{FOLDER!r}]
from rwkvlab.hub import fetch
from rwkvlab.errors import PathError
start = time.perf_counter()
try: print(open(fetch(sys.argv[1]), 'rb').read(7).decode())
except PathError as error: print('PathError', error)
print(time.perf_counter() - start)
"""


class Hub(http.server.BaseHTTPRequestHandler):
    """As much of the hub's protocol as a download needs; what it does with a file, the name of the file says."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self):
        self.answer()

    def do_GET(self):
        self.answer()

    def answer(self):
        path = self.path.removeprefix("http://hub.invalid").removeprefix("/mirror")  # asked as a proxy; as a mirror
        self.server.asked.append((self.command, self.path))
        known = {"X-Repo-Commit": "a" * 40, "ETag": f'"{hashlib.sha256(self.server.data).hexdigest()}"'}
        name = path.removeprefix("/owner/repo/resolve/main/")
        if path.startswith("/owner/gated/"):
            return self.reply(403, {"X-Error-Code": "GatedRepo"})
        if path.startswith("/portal/"):
            return self.reply(200, {"Content-Type": "text/html"}, b"<html>Welcome to our hotel")
        if path.startswith("/owner/ill/"):
            return self.reply(503, {})
        if path == "/cdn/blob":
            return self.reply(200, {"ETag": '"of the cdn"'}, DATA)
        if name == path:
            return self.reply(404, {"X-Error-Code": "RepoNotFound"})
        if name == "cdn.pth":
            linked = {"X-Linked-ETag": known["ETag"], "X-Linked-Size": str(len(DATA)), "X-Repo-Commit": "a" * 40}
            return self.reply(302, linked | {"Location": f"http://localhost:{self.server.server_address[1]}/cdn/blob"})
        if name == "moved.pth":
            return self.reply(307, {"Location": "/owner/repo/resolve/main/sub/a.pth"})
        if name not in ("sub/a.pth", "hangs.pth", "slow.pth", "short.pth", "damaged.pth", "small.txt"):
            return self.reply(404, {"X-Error-Code": "EntryNotFound"})
        if name == "hangs.pth" or (name, self.command) == ("slow.pth", "HEAD"):
            self.server.closing.wait(2.5 if name == "slow.pth" else 60)
        if name == "short.pth" and self.command == "GET" and not self.server.mended:
            if "Range" not in self.headers or self.server.stubborn:
                self.reply(200, known, self.server.data, part=len(self.server.data) // 2)
            self.close_connection = True
            return None
        if name == "small.txt":  # git's own files have another tag
            return self.reply(200, known | {"ETag": f'"{"b" * 40}"'}, self.server.data)
        damaged = name == "damaged.pth" and not self.server.mended
        return self.reply(200, known, b"W" + self.server.data[1:] if damaged else self.server.data)

    def reply(self, status, headers, body=b"", part=None):
        self.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(body))}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[:part])

    def log_message(self, *args):
        pass


@pytest.fixture
def hub():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked, server.closing, server.mended, server.stubborn = [], threading.Event(), False, False
    server.data = DATA
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.closing.set()
    server.shutdown()
    server.server_close()


@pytest.fixture
def silence():
    """An address that takes no connection and does not refuse it either: a listener whose queue is full."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(0)
    waiting = [socket.socket() for _ in range(4)]
    for line in waiting:
        line.setblocking(False)
        line.connect_ex(listener.getsockname())
    yield listener.getsockname()
    for line in (*waiting, listener):
        line.close()


def ask(source, tmp_path, port, **env):
    """Run fetch in a process of its own, since the hub's address is read at import; returns its answer and seconds."""
    settings = {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1,localhost"}
    settings |= dict.fromkeys(("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy", "no_proxy", "HF_TOKEN"), "")
    settings |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CODE, source],
        env={key: value for key, value in (os.environ | settings | env).items() if value},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    *answer, seconds = done.stdout.strip().splitlines()
    return "\n".join(answer), float(seconds)


def test_a_path_that_exists_is_taken_as_it_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "repo").mkdir(parents=True)
    (tmp_path / "owner" / "repo" / "a.pth").write_bytes(b"")
    assert fetch("owner/repo/a.pth").read_bytes() == b""
    assert fetch(tmp_path) == tmp_path


@pytest.mark.parametrize(
    "source", ["none.pth", "./a/b/c.pth", "/a/b/c.pth", "a/../b/c", "a/b", "", "a\0b/c/d", None, 5]
)
def test_what_is_no_file_and_no_address_is_refused_at_once(source):
    start = time.perf_counter()
    with pytest.raises(PathError, match=r"path|file"):
        fetch(source)
    assert time.perf_counter() - start < 0.5


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("~/nowhere/x.pth", r"no such file: ~ is not expanded here; use Path\(…\)\.expanduser\(\)"),
        (Path("~/nowhere/x.pth"), "~ is not expanded here"),
        ("https://huggingface.co/a/b/resolve/main/c.pth", "is a URL; download it first, or give 'owner/repo/file'"),
        ("owner/repo//etc/hostname", "no such file; give a path that exists"),
        ("owner/repo/a//b.pth", "no such file"),
        ("owner/repo/a/", "no such file"),
    ],
)
def test_what_was_meant_is_told(source, words, monkeypatch):
    monkeypatch.setattr(rwkvlab.hub, "_from_hub", lambda *_: pytest.fail("asked the hub"))
    with pytest.raises(PathError, match=words):
        fetch(source)


def test_a_name_with_a_tilde_that_is_there_is_taken(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("~x.pth").touch()
    assert fetch("~x.pth") == fetch(Path("~x.pth")) == Path("~x.pth")


def test_a_file_in_a_folder_that_must_not_be_read_is_not_called_missing(tmp_path, monkeypatch):
    def denied(self):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "lstat", denied)
    assert fetch(f"{tmp_path}/x.pth") == tmp_path / "x.pth" and fetch("~/x.pth") == Path("~/x.pth")


@pytest.mark.parametrize("name", ["HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT"])
@pytest.mark.parametrize("value", ["abc", "1.5", "-3", "0", "", "٣"])
def test_seconds_that_are_no_number_are_named(name, value, monkeypatch):
    monkeypatch.setenv(name, value)
    with pytest.raises(
        PathError, match=f"{name}: need a whole number of seconds above 0, got {re.escape(repr(value))}"
    ):
        fetch("owner/repo/a.pth")


def test_a_missing_file_in_a_folder_that_exists_is_not_sought_on_the_hub(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "models" / "rwkv").mkdir(parents=True)
    with pytest.raises(PathError, match="no such file"):
        fetch("models/rwkv/a.pth")


def test_a_file_is_downloaded_once_and_then_needs_no_network(tmp_path, hub):
    port = hub.server_address[1]
    assert ask("owner/repo/sub/a.pth", tmp_path, port)[0] == "weights"
    asked = len(hub.asked)
    assert ask("owner/repo/sub/a.pth", tmp_path, port)[0] == "weights"
    assert len(hub.asked) == asked
    assert ask("owner/repo/sub/a.pth", tmp_path, port, HF_HUB_OFFLINE="1")[0] == "weights"
    answer, _ = ask("owner/repo/b.pth", tmp_path, port)
    assert answer.startswith("PathError 'owner/repo/b.pth': the repository holds no such file")
    answer, _ = ask("owner/none/b.pth", tmp_path, port)
    assert "no such repository" in answer


def files_in(cache):
    """What a later fetch could take for a download."""
    return [path for path in Path(cache).rglob("*.pth") if path.is_file()]


@pytest.mark.parametrize("file", ["cdn.pth", "moved.pth"])
def test_redirects_are_followed(tmp_path, hub, file):
    port = hub.server_address[1]
    assert ask(f"owner/repo/{file}", tmp_path, port)[0] == "weights"
    assert (("GET", "/cdn/blob") in hub.asked) == (file == "cdn.pth")
    asked = len(hub.asked)
    assert ask(f"owner/repo/{file}", tmp_path, port)[0] == "weights"
    assert len(hub.asked) == asked


def test_a_mirror_may_lie_in_a_folder_of_its_host(tmp_path, hub):
    mirror = f"http://127.0.0.1:{hub.server_address[1]}/mirror/"
    assert ask("owner/repo/sub/a.pth", tmp_path, 9, HF_ENDPOINT=mirror)[0] == "weights"
    assert all(path.startswith("/mirror/owner/repo/resolve/main/sub/a.pth") for _, path in hub.asked)


def test_a_mirror_that_is_set_in_a_running_notebook_counts(tmp_path, hub, monkeypatch):
    from huggingface_hub import constants

    assert not constants.ENDPOINT.startswith("http://127.")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{hub.server_address[1]}/")
    assert fetch("owner/repo/sub/a.pth").read_bytes() == DATA
    assert {method for method, _ in hub.asked} == {"HEAD", "GET"}


def test_the_command_that_fetches_the_file_elsewhere_can_be_copied(tmp_path):
    for env in ({}, {"HF_HUB_OFFLINE": "1"}):
        answer, _ = ask("owner/repo/sub/a b.pth", tmp_path, 9, **env)
        assert "`hf download owner/repo 'sub/a b.pth' --local-dir .` and give the file's path" in answer
    answer, _ = ask("owner/repo/a\x1b[31m$(x).pth", tmp_path, 9)
    assert "\x1b" not in answer and "'a\\x1b[31m$(x).pth'" in answer


def test_a_local_file_wins_over_the_cache_and_the_hub(tmp_path, hub):
    port = hub.server_address[1]
    assert ask("owner/repo/sub/a.pth", tmp_path, port)[0] == "weights"
    asked = len(hub.asked)
    (tmp_path / "owner/repo/sub").mkdir(parents=True)
    (tmp_path / "owner/repo/sub/a.pth").write_bytes(b"mine own")
    assert ask("owner/repo/sub/a.pth", tmp_path, port)[0] == "mine ow"
    assert len(hub.asked) == asked


def test_a_repository_that_asks_for_consent_says_so(tmp_path, hub):
    answer, _ = ask("owner/gated/a.pth", tmp_path, hub.server_address[1])
    assert answer.startswith("PathError 'owner/gated/a.pth': the repository asks for consent")
    assert "hf auth login" in answer


def test_what_answers_and_is_no_hub_or_an_ill_one_is_named(tmp_path, hub):
    here = f"http://127.0.0.1:{hub.server_address[1]}"
    answer, _ = ask("owner/repo/a.pth", tmp_path, 9, HF_ENDPOINT=f"{here}/portal")
    assert answer.endswith("does not answer as a hub does; check HF_ENDPOINT, and whether the network wants a login")
    answer, _ = ask("owner/ill/a.pth", tmp_path, 9, HF_ENDPOINT=here)
    assert answer == f"PathError 'owner/ill/a.pth': '{here}' answers with error 503; try again later, or set " + (
        "HF_ENDPOINT to a mirror"
    )
    assert not files_in(tmp_path)


@pytest.mark.parametrize("source", ["owner--x/repo/a", "a..b/c/d", "-a/b/c", "a/b.git/c", f"{'a' * 200}/b/c"])
def test_what_cannot_be_a_repository_is_refused_without_asking(tmp_path, hub, source):
    start = time.perf_counter()
    with pytest.raises(PathError, match=r"no such repository on .*; check owner and repo"):
        fetch(source)
    assert time.perf_counter() - start < 2


@pytest.mark.parametrize("stubborn", [False, True], ids=["nothing more comes", "starts over each time"])
def test_a_download_that_breaks_off_leaves_nothing_that_looks_whole(tmp_path, hub, stubborn):
    port, hub.stubborn = hub.server_address[1], stubborn
    hub.data = DATA + bytes(24 << 20) if stubborn else DATA  # more than a piece of huggingface_hub's has to come
    answer, _ = ask("owner/repo/short.pth", tmp_path, port)
    assert answer.startswith(f"PathError 'owner/repo/short.pth': the download from 'http://127.0.0.1:{port}' broke off")
    assert "try again" in answer and "\n" not in answer
    assert not files_in(tmp_path)
    hub.mended = True
    assert ask("owner/repo/short.pth", tmp_path, port)[0] == "weights"
    assert [path.read_bytes() for path in files_in(tmp_path)] == [hub.data]


def test_a_download_whose_sha256_is_not_the_hubs_is_removed(tmp_path, hub):
    port, told = hub.server_address[1], hashlib.sha256(DATA).hexdigest()[:12]
    answer, _ = ask("owner/repo/damaged.pth", tmp_path, port)
    got = hashlib.sha256(b"W" + DATA[1:]).hexdigest()[:12]
    assert answer == (
        f"PathError 'owner/repo/damaged.pth': the download is damaged: its sha256 is {got}…, the hub says {told}…;"
        " it was removed, try again"
    )
    assert not files_in(tmp_path)
    hub.mended = True
    assert ask("owner/repo/damaged.pth", tmp_path, port)[0] == "weights"
    assert ask("owner/repo/small.txt", tmp_path, port)[0] == "weights"


def test_a_hub_that_is_slow_is_waited_for_and_one_that_hangs_is_not(tmp_path, hub):
    port = hub.server_address[1]
    calls = [("slow.pth", {}), ("hangs.pth", {}), ("hangs.pth", {"HF_HUB_ETAG_TIMEOUT": "1"})]
    with ThreadPoolExecutor(3) as pool:
        jobs = [pool.submit(ask, f"owner/repo/{file}", tmp_path, port, **env) for file, env in calls]
        slow, *hung = [job.result() for job in jobs]
    assert slow[0] == "weights"  # 2.5 s before the headers came
    for (answer, seconds), low, high in zip(hung, (4.9, 0.9), (12.0, 4.5), strict=True):
        assert answer.startswith("PathError 'owner/repo/hangs.pth': no such local file, and 'http://127.0.0.1")
        assert "cannot be reached (TimeoutError); check the network" in answer
        assert "HF_HUB_ETAG_TIMEOUT" in answer
        assert low < seconds < high


def test_without_a_network_or_offline_the_answer_is_short_and_soon(tmp_path, silence):
    dead = {"HTTP_PROXY": "http://127.0.0.1:9", "NO_PROXY": ""}
    for env, words in (
        ({}, r"'http://127\.0\.0\.1:9' cannot be reached \(ConnectionRefusedError\); check the network"),
        ({"HF_ENDPOINT": "http://hub.invalid"}, r"'http://hub\.invalid' cannot be reached \(gaierror\)"),
        ({"HF_ENDPOINT": f"http://127.0.0.1:{silence[1]}"}, r"cannot be reached \(TimeoutError\).*HF_HUB_ETAG_TIMEOUT"),
        ({"HF_ENDPOINT": "http://hub.invalid", **dead}, r"cannot be reached \(ConnectionRefusedError\)"),
        (
            {"HF_ENDPOINT": "hf-mirror.com"},
            r"HF_ENDPOINT or a proxy is no address: 'hf-mirror\.com'; need https://host",
        ),
        ({"HF_HUB_OFFLINE": "1"}, "not downloaded before, and HF_HUB_OFFLINE is set; unset it"),
    ):
        answer, seconds = ask("owner/repo/a.pth", tmp_path, 9, **env)
        assert answer.startswith("PathError 'owner/repo/a.pth': no such local file")
        assert re.search(words, answer), answer
        assert "\n" not in answer
        assert seconds < 2, (env, seconds)
    answer, seconds = ask("owner/repo/a.pth", tmp_path, 9, HF_ENDPOINT="http://h:99999")
    assert "HF_ENDPOINT or a proxy is no address: 'http://h:99999'; need https://host" in answer
    assert seconds < 2


def test_a_proxy_is_knocked_at_in_place_of_the_hub(tmp_path, hub):
    proxy = {"HTTP_PROXY": f"127.0.0.1:{hub.server_address[1]}", "NO_PROXY": ""}
    assert ask("owner/repo/sub/a.pth", tmp_path, 9, HF_ENDPOINT="http://hub.invalid", **proxy)[0] == "weights"
    assert hub.asked[0] == ("HEAD", "http://hub.invalid/owner/repo/resolve/main/sub/a.pth")


def test_a_name_server_that_hangs_is_not_waited_for(monkeypatch):
    monkeypatch.setattr("rwkvlab.hub.socket.getaddrinfo", lambda *args, **kwargs: time.sleep(4) or [])
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    start = time.perf_counter()
    with pytest.raises(PathError, match=r"cannot be reached \(TimeoutError\)"):
        fetch("owner/repo-that-is-nowhere/a.pth")
    assert time.perf_counter() - start < 2


def test_one_address_that_answers_is_enough(monkeypatch, hub, silence):
    tcp = (socket.AF_INET, socket.SOCK_STREAM, 6, "")
    addresses = [(*tcp, silence), (*tcp, ("127.0.0.1", 9)), (*tcp, hub.server_address)]
    monkeypatch.setattr("rwkvlab.hub.socket.getaddrinfo", lambda *args, **kwargs: addresses)
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
    start = time.perf_counter()
    rwkvlab.hub._knock("http://many", 1.5)
    assert time.perf_counter() - start < 1
    addresses.pop()
    with pytest.raises(OSError, match=r"refused|^$|timed out"):
        rwkvlab.hub._knock("http://many", 0.3)


def test_what_lies_below_a_file_is_not_asked_of_the_hub(tmp_path, monkeypatch):
    (tmp_path / "k").mkdir()
    (tmp_path / "k" / "views.pth").write_bytes(b"x")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(PathError, match="no such file; give a path"):
        fetch("k/views.pth/x")
