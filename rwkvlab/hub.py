"""fetch: a path or "owner/repo/file" on the Hugging Face Hub becomes a local path; local first, network last."""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable
from pathlib import Path

from rwkvlab.errors import PathError, show

TIMEOUT = 5.0  # seconds for the hub to answer; the download itself may take as long as it needs
_ON_HUB = re.compile(r"(?P<repo>[\w.-]+/[\w.-]+)/(?P<file>[^\\]+)", re.ASCII | re.DOTALL)


def fetch(source: str | os.PathLike[str]) -> Path:
    """Return the local path of `source`: a file or folder that exists, or "owner/repo/file" (or deeper) on the hub.

    A file that was downloaded before comes from huggingface_hub's cache, without the network. Nothing in a file is run.
    Raises PathError, within seconds, for what is neither, and where the hub cannot be reached or HF_HUB_OFFLINE is set.
    """
    if not isinstance(source, (str, os.PathLike)) or not os.fspath(source) or "\0" in str(source):
        raise PathError(f"source: need a path or 'owner/repo/file', got {show(source)}")
    path = Path(source)
    if not isinstance(source, str) or os.path.lexists(path):
        return path
    found = _ON_HUB.fullmatch(source)
    if not found or ".." in source.split("/") or source.startswith(".") or Path(found["repo"]).is_dir():
        raise PathError(f"{show(source)}: no such file; give a path that exists, or 'owner/repo/file' on Hugging Face")
    return _from_hub(source, found["repo"], found["file"])


def _from_hub(source: str, repo: str, file: str) -> Path:
    import huggingface_hub as hub

    cached = hub.try_to_load_from_cache(repo, file)
    if isinstance(cached, str) and os.path.exists(cached):
        return Path(cached)
    if hub.constants.HF_HUB_OFFLINE:
        raise PathError(
            f"{show(source)}: no such local file, not downloaded before, and HF_HUB_OFFLINE is set;"
            " unset it, or download the file elsewhere and give its path"
        )
    # asked for once and without retries: hf_hub_download alone retries for 23 s before it says that there is no network
    problem = _within(TIMEOUT + 3, lambda: hub.get_hf_file_metadata(hub.hf_hub_url(repo, file), timeout=TIMEOUT))
    if problem is None:
        try:
            return Path(hub.hf_hub_download(repo, file))
        except Exception as error:
            problem = error
    raise PathError(f"{show(source)}: {_explain(problem, hub)}") from None


def _within(seconds: float, ask: Callable[[], object]) -> Exception | None:
    """Return what `ask` raised, None if nothing, or TimeoutError after some seconds (looking up a name may hang)."""
    outcome: list[Exception | None] = [TimeoutError()]

    def work() -> None:
        try:
            ask()
            outcome[0] = None
        except Exception as error:
            outcome[0] = error

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    return outcome[0]


def _explain(error: Exception, hub: object) -> str:
    kinds = {kind.__name__ for kind in type(error).__mro__}
    endpoint = show(hub.constants.ENDPOINT)  # type: ignore[attr-defined]
    if "GatedRepoError" in kinds:
        return "the repository asks for consent; accept its terms on its page and log in with 'hf auth login'"
    if kinds & {"RepositoryNotFoundError", "HFValidationError"}:
        return f"no such local file, and no such repository on {endpoint} (or a private one); check owner and repo"
    if kinds & {"EntryNotFoundError", "RevisionNotFoundError"}:
        return "the repository holds no such file; check its name in the list of files of the repository"
    if isinstance(error, OSError) and error.errno == 28:
        return "the disk is full; free some space and try again"
    return (
        f"no such local file, and {endpoint} cannot be reached ({type(error).__name__}); check the network,"
        " set HF_ENDPOINT to a mirror, or download the file elsewhere and give its path"
    )
