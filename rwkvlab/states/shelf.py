"""Shelf: the states of a folder by name, read when they are asked for; what cannot be read is listed, and why."""

from __future__ import annotations

import difflib
import os
import unicodedata
from collections.abc import Iterator, Mapping
from pathlib import Path

from rwkvlab.errors import PathError, RwkvLabError, UnknownNameError, show
from rwkvlab.shapes import ARCH_NAMES
from rwkvlab.states.files import load_state, peek_state
from rwkvlab.states.fits import HasDims, check_geometry
from rwkvlab.states.names import parse_name
from rwkvlab.states.render import escape
from rwkvlab.states.state import State
from rwkvlab.tensorfile.source import as_path

SUFFIXES = (".pth", ".state", ".st", ".safetensors")
_ROWS = 100  # shown in a notebook; the rest is counted


class Shelf(Mapping[str, State]):
    """States by name: `shelf["emoji"]` reads the file, each time anew; iteration and len() open none.

    A name is the file's without its suffix, or with it where two files would have the same. unreadable maps the names
    of the files that cannot be read, or do not fit the model, to the reason; they are not among the keys.
    """

    def __init__(self, folder: str | os.PathLike[str], model: HasDims | None = None) -> None:
        """List the .pth, .state, .st and .safetensors files of a folder, not of folders in it.

        Only headers are read here; with a model, what does not fit it is unreadable. Raises PathError if there is
        no such folder, and nothing for a file in it.
        """
        path = as_path(folder)
        try:
            found = sorted(name for name in os.listdir(path) if name.lower().endswith(SUFFIXES) and name[0] != ".")
        except OSError as error:
            raise PathError(
                f"{show(path)}: no readable folder ({error.strerror}); give the folder of the states"
            ) from error
        stems = [parse_name_stem(name) for name in found]
        names = [stem if stems.count(stem) == 1 else name for stem, name in zip(stems, found, strict=True)]
        self._fill(str(path), {name: path / file for name, file in zip(names, found, strict=True)}, model)

    @classmethod
    def of(
        cls,
        title: str,
        paths: Mapping[str, Path],
        model: HasDims | None = None,
        *,
        aliases: Mapping[str, str] | None = None,
        unreadable: Mapping[str, str] | None = None,
        default: str | None = None,
    ) -> Shelf:
        """Return a shelf of given files; aliases are other names of them (such as ids), unreadable is added to."""
        shelf = cls.__new__(cls)
        shelf._fill(title, paths, model)
        shelf.unreadable |= unreadable or {}
        shelf._aliases = dict(aliases or {})
        shelf.default = default
        return shelf

    def _fill(self, title: str, paths: Mapping[str, Path], model: HasDims | None) -> None:
        self.title, self.model = title, model
        self.default: str | None = None
        self.unreadable: dict[str, str] = {}
        self._aliases: dict[str, str] = {}
        self._paths: dict[str, Path] = {}
        self._archs: dict[str, str] = {}
        for name, path in paths.items():
            try:
                card, shape = peek_state(path, model)
                if model is not None:
                    check_geometry(card, shape, model)
            except RwkvLabError as error:
                self.unreadable[name] = str(error)
            else:
                self._paths[name], self._archs[name] = path, card.arch

    def __getitem__(self, name: str) -> State:
        """Read a state; raises UnknownNameError (a KeyError) for no such name, else what load_state raises."""
        return load_state(self.path(name), self.model).named(self._resolve(name))

    def path(self, name: str) -> Path:
        """Return the file of a state; raises UnknownNameError, with the names that come near."""
        name = self._resolve(name)
        if name in self._paths:
            return self._paths[name]
        if name in self.unreadable:
            raise UnknownNameError(f"{show(self.title)}: {show(name)} cannot be used: {self.unreadable[name]}")
        near = difflib.get_close_matches(str(name), self._paths, 3, 0.4)
        hint = f"did you mean {', '.join(map(show, near))}?" if near else "list(shelf) has the names"
        raise UnknownNameError(f"{show(self.title)}: no state {show(name)} among {len(self)}; {hint}")

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and self._resolve(name) in self._paths

    def _resolve(self, name: str) -> str:
        return name if name in self._paths else self._aliases.get(str(name).lower(), name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._paths)

    def __len__(self) -> int:
        return len(self._paths)

    def find(self, text: str) -> list[str]:
        """Return the names that hold `text`; case, width and composition of characters do not matter."""
        return [name for name in self._paths if _plain(text) in _plain(name)]

    def _ipython_key_completions_(self) -> list[str]:
        return list(self)

    def __repr__(self) -> str:
        some = ", ".join(show(name, 30) for name in list(self)[:6]) + (", …" if len(self) > 6 else "")
        bad = f"; {len(self.unreadable)} unreadable" if self.unreadable else ""
        return f"<Shelf {show(self.title, 40)}: {len(self)} states{': ' if some else ''}{some}{bad}>"

    def _repr_html_(self) -> str:
        rows = "".join(map(self._row, list(self)[:_ROWS]))
        if len(self) > _ROWS:
            rows += f"<tr><td>… {len(self) - _ROWS} more</td></tr>"
        heads = "".join(f"<th>{head}</th>" for head in ("name", "made for", "size", "date", "ctx", "MiB", "file"))
        bad = "".join(
            f"<li><b>{escape(name)}</b>: {escape(why, 300)}</li>" for name, why in list(self.unreadable.items())[:_ROWS]
        )
        bad = f"<div>unreadable: {len(self.unreadable)}</div><ul>{bad}</ul>" if bad else ""
        title = f"<b>Shelf {escape(self.title)}</b>: {len(self)} states"
        return f"<div>{title}<table><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>{bad}</div>"

    def _row(self, name: str) -> str:
        path, said, arch = self._paths[name], parse_name(name), self._archs[name]
        try:
            size = f"{path.stat().st_size / 2**20:.1f}"
        except OSError:
            size = "gone"
        texts = (name, ARCH_NAMES.get(arch, arch), said.size, said.date, said.ctx or "", size, path.name)
        return "<tr>" + "".join(f"<td>{escape(text)}</td>" for text in texts) + "</tr>"


def parse_name_stem(name: str) -> str:
    """Return a file name without the suffix of a state file."""
    return next(name[: -len(suffix)] for suffix in (*SUFFIXES, "") if name.lower().endswith(suffix)) or name


def _plain(text: str) -> str:
    return unicodedata.normalize("NFKC", text).casefold()
