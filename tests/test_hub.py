"""fetch finds what is here before it asks, and says within seconds when nobody answers."""

import hashlib
import http.server
import os
import subprocess
import sys
import threading
import time
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
    def do_HEAD(self):
        self.server.asked.append(self.path)
        known = self.path == "/owner/repo/resolve/main/sub/a.pth"
        self.send_response(200 if known else 404)
        if known:
            self.send_header("X-Repo-Commit", "a" * 40)
            self.send_header("ETag", f'"{hashlib.sha256(DATA).hexdigest()}"')
            self.send_header("Content-Length", str(len(DATA)))
        elif self.path.startswith("/owner/repo/"):
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("Content-Length", "0")
        else:
            self.send_header("X-Error-Code", "RepoNotFound")
            self.send_header("Content-Length", "0")
        self.end_headers()
        return known

    def do_GET(self):
        if self.do_HEAD():
            self.wfile.write(DATA)

    def log_message(self, *args):
        pass


@pytest.fixture
def hub():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.asked = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def ask(source, tmp_path, port, **env):
    """Run fetch in a process of its own, since the hub's address is read at import; returns its answer and seconds."""
    settings = {"HF_ENDPOINT": f"http://127.0.0.1:{port}", "HF_HOME": str(tmp_path), "NO_PROXY": "127.0.0.1"}
    settings |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CODE, source],
        env=os.environ | settings | env,
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


def test_without_a_network_or_offline_the_answer_is_short_and_soon(tmp_path):
    for env, words in (({}, "cannot be reached"), ({"HF_HUB_OFFLINE": "1"}, "HF_HUB_OFFLINE is set")):
        answer, seconds = ask("owner/repo/a.pth", tmp_path, 9, **env)
        assert answer.startswith("PathError 'owner/repo/a.pth': no such local file")
        assert words in answer
        assert "\n" not in answer
        assert seconds < 6
