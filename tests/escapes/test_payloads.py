"""The hostile texts are many and of every kind, and the reader of trees sees each that is put into HTML as it is."""

import pytest
from payloads import CHINESE, FEW, FORTY, HARMLESS, KINDS, MARKUP, PAYLOADS, acting, head
from trees import Tree, differences

from rwkvlab.measure.comparing.grid import html_text
from rwkvlab.states.render import NO_FORMULAS, escape

PAGES = {
    "named": '<div class="{}"><p>State <b>{}</b></p> <p>a</p></div>',
    "quoted": '<div class="{}"><p title="{}">a</p> <p>b</p></div>',
    "read": '<div class="{}"><pre>{}</pre> <p>b</p></div>',
}


def page(kind, text):
    return PAGES[kind].format(NO_FORMULAS, text)


def trouble(kind, text, payload):
    tree = Tree(page(kind, text))
    return tree.wrong() or differences(Tree(page(kind, HARMLESS)), tree, payload)


def test_there_are_hostile_texts_of_every_kind():
    assert len(set(PAYLOADS)) == len(PAYLOADS) >= 150
    assert len(FORTY) >= 40 and len(FEW) > len(FORTY)
    assert len(KINDS) >= 20 and all(texts for texts in KINDS.values())


@pytest.mark.parametrize("kind", ["named", "read"])
def test_markup_that_is_not_escaped_is_seen(kind):
    missed = [text for text in MARKUP if not trouble(kind, text, text)]
    assert set(missed) <= {"--!>", "]]>"}  # these are texts, where nothing is open


def test_an_attribute_that_is_not_escaped_is_seen():
    for text in KINDS["attributes"]:
        if '"' in text:
            assert trouble("quoted", text, text), text


def test_entities_that_are_not_escaped_are_seen_since_their_text_is_another():
    missed = [text for text in KINDS["entities"] if not trouble("named", text, text)]
    assert not any(text.startswith("&") and text != "&" for text in missed), missed


def test_formulas_outside_of_what_is_kept_from_the_typesetter_are_seen():
    for text in KINDS["formulas"]:
        assert Tree(f"<p>{text}</p>").wrong(), text
        assert not Tree(page("named", text)).wrong(), text


def test_addresses_styles_and_elements_that_no_page_of_ours_has_are_seen():
    for bad in (
        *('<img src="https://a.example/x.png">', '<img src="data:text/html,x">', '<a href="#x">a</a>'),
        *('<p style="background:url(x)">a</p>', "<style>@import 'x'</style>", '<p onclick="x">a</p>', "<!-- a -->"),
        *('<b href="data:image/png;base64,AAAA">x</b>', "<i>x</i>", '<meta http-equiv="refresh" content="0">'),
    ):
        assert Tree(bad).wrong(), bad


@pytest.mark.parametrize("kind", PAGES)
def test_what_is_escaped_passes(kind):
    for text in PAYLOADS:
        for escaped in (escape(text), html_text(text)):
            assert not trouble(kind, escaped, text), text


def test_an_escaped_text_reads_as_it_was_written():
    for text in (*CHINESE, *KINDS["entities"], *KINDS["attributes"], *KINDS["unclosed"]):
        if not acting(text, ""):
            assert Tree(page("named", escape(text, 1000))).nodes[2][2] == text
            assert Tree(page("named", html_text(text))).nodes[2][2] == text


def test_every_text_but_a_blank_one_is_looked_for_where_it_is_shown():
    assert {text for text in PAYLOADS if not head(text)} == {"\x85", "\x0c", " " * 500, "\u3000", "\u00a0"}
    assert all(head(text) == text[:5] for text in CHINESE)
