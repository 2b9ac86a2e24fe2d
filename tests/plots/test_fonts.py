import io
import warnings

import matplotlib
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib import font_manager
from matplotlib.figure import Figure

from rwkvlab.plots import fonts

CHARACTERS = "文言"


@pytest.fixture
def font(tmp_path):
    """The path of a font that has two Chinese characters, and whose name says so."""
    pen = TTGlyphPen(None)
    pen.moveTo((0, 0))
    pen.lineTo((900, 0))
    pen.lineTo((0, 900))
    pen.closePath()
    names = [".notdef", *(f"uni{ord(char):04X}" for char in CHARACTERS)]
    build = FontBuilder(1000, isTTF=True)
    build.setupGlyphOrder(names)
    build.setupCharacterMap({ord(char): f"uni{ord(char):04X}" for char in CHARACTERS})
    build.setupGlyf(dict.fromkeys(names, pen.glyph()))
    build.setupHorizontalMetrics(dict.fromkeys(names, (1000, 0)))
    build.setupHorizontalHeader(ascent=900, descent=-100)
    build.setupNameTable({"familyName": "Tiny Sans SC", "styleName": "Regular"})
    build.setupOS2()
    build.setupPost()
    build.save(tmp_path / "tiny.ttf")
    return str(tmp_path / "tiny.ttf")


@pytest.fixture
def only_dejavu(monkeypatch):
    """matplotlib as on a machine without Chinese fonts, put back afterwards."""
    manager = font_manager.fontManager
    plain = [entry for entry in manager.ttflist if "DejaVu" in entry.name]
    monkeypatch.setattr(manager, "ttflist", plain)
    monkeypatch.setattr(font_manager, "findSystemFonts", lambda *_, **__: [])
    forget = (fonts._families, fonts._drawable, fonts._add_new_fonts, manager._findfont_cached)
    for cached in forget:
        cached.cache_clear()
    yield manager
    monkeypatch.undo()
    for cached in forget:
        cached.cache_clear()


def test_only_fonts_that_are_installed_are_named():
    there = set(font_manager.fontManager.get_font_names())
    assert set(fonts.families()) <= there and fonts.families()[0] == "DejaVu Sans"
    assert fonts.families(mono=True)[0] == "DejaVu Sans Mono"


def test_the_fonts_of_rcparams_come_first():
    with matplotlib.rc_context({"font.family": ["serif"]}):
        assert fonts.families()[0] == "DejaVu Serif" and "DejaVu Sans" in fonts.families()
    with matplotlib.rc_context({"font.family": ["No Such Font", "DejaVu Sans Mono"]}):
        assert fonts.families()[0] == "DejaVu Sans Mono"


def test_without_a_font_characters_are_shown_by_code_with_one_hint(only_dejavu):
    with pytest.warns(UserWarning, match="apt install"):
        assert fonts.label("a文言") == "a\\u6587\\u8a00"
    with pytest.warns(UserWarning, match="apt install"):
        cut = fonts.label("文" * 100)
    assert len(cut) <= 50 and cut.endswith("…") and cut.startswith("\\u6587")


@pytest.mark.parametrize("how", ["added by hand", "installed after the list of fonts was written"])
def test_a_font_that_is_there_draws_chinese_as_text_in_a_pdf_too(only_dejavu, font, how, monkeypatch):
    assert "Tiny Sans SC" not in fonts.families()
    if how == "added by hand":
        only_dejavu.addfont(font)
    else:
        monkeypatch.setattr(font_manager, "findSystemFonts", lambda *_, **__: ["/no/such.ttf", font])
    out = io.BytesIO()
    with warnings.catch_warnings(), matplotlib.rc_context({"pdf.compression": 0}):
        warnings.simplefilter("error")
        assert fonts.label("a文言") == "a文言" and fonts.families()[-1] == "Tiny Sans SC"
        figure = Figure()
        figure.text(0.5, 0.5, fonts.label("a文言"), **fonts.words())
        figure.savefig(out, format="pdf")
    assert b"<6587>" in out.getvalue()  # the text can be copied from the file


def test_labels_are_cut_on_one_line_and_no_formulas():
    assert fonts.label("a\nb$x$") == "a\\x0ab\\$x\\$"
    assert len(fonts.label("x" * 10_000)) == 41
    assert fonts.entry("") == "''" and fonts.entry("_hidden") == " _hidden"


@pytest.mark.parametrize(
    ("piece", "shown"), [(" the", "␣the"), ("\n", "⏎"), ("  ", "␣␣"), ("a b ", "a b␣"), ("$", "\\$"), (3, "3")]
)
def test_blanks_and_line_ends_of_a_token_are_seen(piece, shown):
    assert fonts.piece_label(piece) == shown
