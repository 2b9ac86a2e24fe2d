"""The page of a comparison: one HTML file with grid, legend, settings and cards, that needs nothing outside it."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch

from rwkvlab.errors import show
from rwkvlab.states.render import NO_FORMULAS, escape
from rwkvlab.states.state import State
from rwkvlab.tensorfile import tensor_digest

if TYPE_CHECKING:
    from rwkvlab.model.engine import Model

STARTS = ("state", "name", "recipe", "template", "base", "source", "notes", "norm", "sha256")
# the browser itself then refuses whatever would load or run, even if something slipped through
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
_STYLE = """
:root{color-scheme:light dark;--jp-border-color2:#c8c8c8;--jp-layout-color2:#f2f4f7;--jp-content-font-color1:#1b1b1b;
--paper:#fff}
@media(prefers-color-scheme:dark){:root{--jp-border-color2:#444;--jp-layout-color2:#23272e;
--jp-content-font-color1:#e8e8e8;--paper:#16181c}}
body{margin:0;padding:16px 24px;width:fit-content;min-width:calc(100% - 48px);background:var(--paper);
color:var(--jp-content-font-color1);
font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Noto Sans CJK SC","PingFang SC","Microsoft YaHei",
sans-serif}
.about,.rwkvlab-key,.rwkvlab-grid+small{display:block;position:sticky;left:24px;width:calc(100vw - 64px);max-width:75em;
overflow-wrap:anywhere}
p{margin:.2em 0}.cards{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(26em,100%),1fr));gap:0 2em}
h1{font-size:1.3em;margin:.2em 0}h2{font-size:1.05em;margin:1.6em 0 .4em}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.1em 1em;margin:0}dt{opacity:.7}dd{margin:0}
.rwkvlab-grid{margin:1em 0}.rwkvlab-grid tbody th{font-weight:600;min-width:11em;max-width:11em}
.rwkvlab-grid td{min-width:15em;max-width:34em}
.rwkvlab-grid thead th{position:sticky;top:0;z-index:2;background:var(--jp-layout-color2)}
body .rwkvlab-grid thead .pinned{z-index:3}.rwkvlab-grid td small{display:block;margin-top:.3em}
@media(min-width:1100px){.rwkvlab-grid tbody th{position:sticky;left:0;z-index:1;background:var(--paper)}
.rwkvlab-grid thead th:first-child{left:0;z-index:4}body .rwkvlab-grid .pinned{left:calc(11em + 17px)}}
@media(max-width:700px){body{padding:12px;min-width:calc(100% - 24px)}
.about,.rwkvlab-key,.rwkvlab-grid+small{left:12px;width:calc(100vw - 40px)}
.rwkvlab-grid td{min-width:10em}.rwkvlab-grid .pinned{max-width:42vw;min-width:6em}
.rwkvlab-grid tbody th{min-width:6em;max-width:6em}}
@page{size:landscape;margin:12mm}
@media print{body{width:auto;padding:0;font-size:11px}
.about,.rwkvlab-key,.rwkvlab-grid+small,.rwkvlab-grid .pinned,.rwkvlab-grid th{position:static!important;width:auto}
.rwkvlab-grid td{min-width:0}.rwkvlab-grid tbody th{min-width:7em;max-width:7em}small{break-inside:avoid}}
"""


def describe_model(model: Model) -> dict[str, str]:
    """Return what there is to know of a model and the software, as strings."""
    try:
        own = version("rwkvlab")
    except PackageNotFoundError:
        own = "not installed"
    return {
        "model": model.card.name,
        "geometry": f"{model.dims}, vocabulary {model.dims.vocab}",
        "fingerprint": model.card.fingerprint,
        "weights": f"{str(model.dtype).removeprefix('torch.')} on {model.device}",
        "software": f"rwkvlab {own}, torch {torch.__version__}, Python {sys.version.split()[0]}",
    }


def describe_starts(arms: Mapping[str, State | None]) -> pd.DataFrame:
    """Return one row an arm: state (its name here), name, recipe, template, base, source, notes, norm, sha256.

    norm is Frobenius' of all WKV matrices; sha256 that of the tensors, as `save_state` writes it in .safetensors of
    fp32. The zero state as None has neither card nor sha256.
    """
    rows = []
    for arm, state in arms.items():
        if state is None:
            rows.append((arm, "", "zeros", "", "", "", "", 0.0, ""))
            continue
        card, norm = state.card, float(state.wkv.detach().norm())
        digest = tensor_digest({name: getattr(state, name) for name in ("wkv", "att_shift", "ffn_shift")})
        known = (card.name, card.recipe, card.template, card.base, card.source, "; ".join(card.notes))
        rows.append((arm, *known, norm, digest))
    return pd.DataFrame(rows, columns=list(STARTS))


def page(prompts: Sequence[str], grid: str, about: Mapping[str, str], starts: pd.DataFrame) -> str:
    """Return the page; `grid` is HTML already, everything else is escaped here."""
    count = "1 start" if len(starts) == 1 else f"{len(starts)} starts compared"
    title = f"{show(prompts[0], 60)[1:-1] if prompts else 'no answers'}: {count}"
    cards = "".join(_card(str(row.pop("state")), row, at == 0) for at, row in enumerate(starts.to_dict("records")))
    return (
        f'<!DOCTYPE html><html lang="en" class="{NO_FORMULAS}"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{escape(title, 200)}</title>'
        f'<style>{_STYLE}</style></head><body><div class="about"><h1>{escape(title, 200)}</h1>'
        f"<p>One model, the same prompts; only the initial state differs between the columns.</p></div>{grid}"
        f'<div class="about cards"><div><h2>Model</h2>{_list(about)}</div>{cards}</div></body></html>\n'
    )


def _card(arm: str, card: Mapping[Any, Any], first: bool) -> str:
    number = {"norm": f"{card['norm']:.4g}"} if "norm" in card else {}
    return f"<div><h2>{escape(arm, 120)}{' (the baseline)' if first else ''}</h2>{_list({**card, **number})}</div>"


def _list(items: Mapping[Any, Any]) -> str:
    rows = (f"<dt>{escape(key)}</dt><dd>{escape(value, 400)}</dd>" for key, value in items.items() if value)
    return f"<dl>{''.join(rows)}</dl>"
