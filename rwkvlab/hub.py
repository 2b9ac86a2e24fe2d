"""fetch: a path or "owner/repo/file" on the Hugging Face Hub becomes a local path; local first, network last."""

from __future__ import annotations

import errno
import hashlib
import inspect
import os
import queue
import re
import shlex
import socket
import threading
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from rwkvlab.errors import PathError, show

TIMEOUT = 5.0  # seconds for a hub that is there to answer; the download itself may take as long as it needs
NO_NETWORK = 1.6  # seconds from the call within which a hub that is not there is noticed
RESTARTS = 2  # how often a download that broke off may begin again at its first byte
_ON_HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)/(?P<file>[^\\]+)", re.ASCII | re.DOTALL)
_PORTS = {"http": 80, "https": 443}


def fetch(source: str | os.PathLike[str]) -> Path:
    """Return the local path of `source`: a file or folder that exists, or "owner/repo/file" (or deeper) on the hub.

    A file that was downloaded before comes from huggingface_hub's cache, without the network. Nothing in a file is run.
    A download is checked against the sha256 that the hub tells of large files. HF_ENDPOINT names a mirror, also where a
    notebook sets os.environ["HF_ENDPOINT"]. Raises PathError for what is neither path nor address, at once; where
    nobody takes the connection (no network, no such host, a wall of silence; HF_HUB_OFFLINE is set), within 2 s; where
    the hub takes it and does not answer, after 5 s. On a slow network HF_HUB_ETAG_TIMEOUT, in seconds, replaces both.
    """
    start = time.monotonic()
    if not isinstance(source, (str, os.PathLike)) or not os.fspath(source) or "\0" in str(source):
        raise PathError(f"source: need a path or 'owner/repo/file', got {show(source)}")
    path = Path(source)
    if os.fsdecode(source).startswith("~") and not _may_exist(path):
        raise PathError(f"{show(source)}: no such file: ~ is not expanded here; use Path(…).expanduser()")
    if not isinstance(source, str) or _may_exist(path):
        return path
    if "://" in source:
        raise PathError(f"{show(source)}: is a URL; download it first, or give 'owner/repo/file' on Hugging Face")
    found, parts = _ON_HUB.fullmatch(source), source.split("/")
    if not found or {"", ".."} & {*parts} or source.startswith(".") or os.path.lexists(found["repo"]):
        raise PathError(f"{show(source)}: no such file; give a path that exists, or 'owner/repo/file' on Hugging Face")
    return _from_hub(source, found["repo"], found["file"], start)


def _may_exist(path: Path) -> bool:
    """Whether something is there, or a folder on the way must not be looked into: opening it says which."""
    try:
        path.lstat()
    except (OSError, ValueError) as error:
        return isinstance(error, PermissionError)
    return True


def _check_seconds(*names: str) -> None:
    """Raise PathError for settings in the environment that are no number of seconds: huggingface_hub needs integers."""
    for name in names:
        text = os.environ.get(name)
        if text is not None and not (text.isascii() and text.strip().isdigit() and int(text) > 0):
            raise PathError(f"{name}: need a whole number of seconds above 0, got {show(text)}; set it so, or unset it")


def _from_hub(source: str, repo: str, file: str, start: float) -> Path:
    _check_seconds("HF_HUB_ETAG_TIMEOUT", "HF_HUB_DOWNLOAD_TIMEOUT")
    import huggingface_hub as hub

    # read at each call: huggingface_hub knows only what was set when it was imported
    endpoint, downloading = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/"), False
    elsewhere = show(shlex.join(["hf", "download", repo, file, "--local-dir", "."]), 160)[1:-1]
    try:
        cached = hub.try_to_load_from_cache(repo, file)
        if isinstance(cached, str) and os.path.exists(cached):
            return Path(cached)
        if hub.constants.HF_HUB_OFFLINE:
            raise PathError(
                f"{show(source)}: no such local file, not downloaded before, and HF_HUB_OFFLINE is set;"
                f" unset it and start again, or run elsewhere `{elsewhere}` and give the file's path"
            )
        # "no" comes soon: hf_hub_download alone retries for 23 s before it says that there is no network
        patience = float(hub.constants.HF_HUB_ETAG_TIMEOUT) if os.environ.get("HF_HUB_ETAG_TIMEOUT") else None
        _knock(endpoint, patience or max(0.8, NO_NETWORK - (time.monotonic() - start)))  # the import may have been slow
        late = patience or TIMEOUT
        url = hub.hf_hub_url(repo, file, endpoint=endpoint)
        known = _within(late, lambda: hub.get_hf_file_metadata(url, timeout=late))
        downloading = True
        path = Path(hub.hf_hub_download(repo, file, endpoint=endpoint, **_giving_up(hub)))
        return _verified(source, path, known.etag or "")
    except PathError:
        raise
    except Exception as error:
        raise PathError(f"{show(source)}: {_explain(error, show(endpoint), downloading, elsewhere)}") from None


def _verified(source: str, path: Path, etag: str) -> Path:
    """Return the path of a download; PathError, and it is gone, unless it has the sha256 that the hub tells, if any."""
    with open(path, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if re.fullmatch("[0-9a-f]{64}", etag) and found != etag:  # of large files the hub's tag is their sha256
        os.unlink(os.path.realpath(path))
        what = f"is damaged: its sha256 is {found[:12]}…, the hub says {etag[:12]}…; it was removed, try again"
        raise PathError(f"{show(source)}: the download {what}")
    return path


def _giving_up(hub: Any) -> dict[str, Any]:
    """Return what makes hf_hub_download give up on a server that breaks off; newer ones start over for ever."""
    if "tqdm_class" not in inspect.signature(hub.hf_hub_download).parameters:
        return {}  # older ones give up by themselves

    class Bar(hub.utils.tqdm):
        restarts = 0

        def update(self, n: float | None = 1) -> object:
            self.restarts += n is not None and n < 0
            if self.restarts > RESTARTS:
                raise ConnectionError("starts over and over")
            return super().update(n)

    return {"tqdm_class": Bar}


def _knock(endpoint: str, seconds: float) -> None:
    """Return if the hub, or the proxy before it, takes a connection within some seconds; else raise what went wrong.

    All addresses of the host are tried at once: on many networks the first of them, an IPv6 one, leads nowhere.
    """
    proxies = urllib.request.getproxies()
    url = urlsplit(endpoint)
    proxy = proxies.get(url.scheme) or proxies.get("all")
    if proxy and not urllib.request.proxy_bypass(url.netloc):
        url = urlsplit(proxy if "://" in proxy else f"http://{proxy}")
    host, port = url.hostname, url.port or _PORTS.get(url.scheme, 1080)
    if not host:
        raise ValueError(endpoint)
    answers: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def call(address: tuple[Any, ...], errors: list[Exception]) -> None:
        try:
            with socket.socket(*address[:3]) as line:
                line.settimeout(seconds)
                line.connect(address[4])
            answers.put(None)
        except OSError as error:
            errors.append(error)

    def call_all() -> None:
        errors: list[Exception] = []
        try:
            addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[:8]
        except (OSError, UnicodeError) as error:
            addresses, errors = [], [error]
        calls = [threading.Thread(target=call, args=(address, errors), daemon=True) for address in addresses]
        for thread in calls:
            thread.start()
        for thread in calls:
            thread.join()
        answers.put(errors[0] if errors else None)

    threading.Thread(target=call_all, daemon=True).start()
    try:
        problem = answers.get(timeout=seconds)
    except queue.Empty:
        problem = TimeoutError()
    if problem is not None:
        raise problem


def _within(seconds: float, ask: Callable[[], Any]) -> Any:
    """Return what `ask` returns; raises what it raised, or TimeoutError after some seconds."""
    outcome: queue.SimpleQueue[tuple[Any, Exception | None]] = queue.SimpleQueue()

    def work() -> None:
        try:
            outcome.put((ask(), None))
        except Exception as error:
            outcome.put((None, error))

    threading.Thread(target=work, daemon=True).start()
    try:
        found, problem = outcome.get(timeout=seconds)
    except queue.Empty:
        found, problem = None, TimeoutError()
    if problem is not None:
        raise problem
    return found


def _explain(error: Exception, endpoint: str, downloading: bool, elsewhere: str) -> str:
    kinds = {kind.__name__ for kind in (*type(error).__mro__, *type(error.__cause__).__mro__)}
    status = getattr(getattr(error, "response", None), "status_code", "")
    if "GatedRepoError" in kinds:
        return "the repository asks for consent; accept its terms on its page and log in with 'hf auth login'"
    if kinds & {"RepositoryNotFoundError", "HFValidationError"}:
        return f"no such local file, and no such repository on {endpoint} (or a private one); check owner and repo"
    if type(error) is ValueError:
        return f"no such local file, and HF_ENDPOINT or a proxy is no address: {endpoint}; need https://host"
    if "FileMetadataError" in kinds:
        return f"{endpoint} does not answer as a hub does; check HF_ENDPOINT, and whether the network wants a login"
    if kinds & {"EntryNotFoundError", "RevisionNotFoundError"} and "LocalEntryNotFoundError" not in kinds:
        return "the repository holds no such file; check its name in the list of files of the repository"
    if "HfHubHTTPError" in kinds and status:
        return f"{endpoint} answers with error {status}; try again later, or set HF_ENDPOINT to a mirror"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return "the disk is full; free some space and try again"
    if downloading:
        return f"the download from {endpoint} broke off ({type(error).__name__}); try again"
    slow = "; on a slow network set HF_HUB_ETAG_TIMEOUT=30" if kinds & {"TimeoutError", "TimeoutException"} else ""
    return (
        f"no such local file, and {endpoint} cannot be reached ({type(error).__name__}); check the network,"
        f" set HF_ENDPOINT to a mirror, or run where there is a network `{elsewhere}` and give the file's path{slow}"
    )
