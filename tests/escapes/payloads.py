"""Hostile texts by kind: what a name, a card, a prompt or an answer may hold, and how it is seen where it is shown."""

import unicodedata

from rwkvlab.errors import show

HARMLESS = "plain"
CHINESE = ("文言文", "东京到巴黎怎么走?", "《红楼梦》第一回", "你好，世界。", "龘靐齉爩")  # stay as they are everywhere
RUN = "window.__pwned=1"  # what would be seen in a browser
KINDS = {
    "scripts": ("<script>alert(1)</script>", "<SCRIPT SRC=//a.example/x.js>", f"<script>{RUN}</script>", "</script>"),
    "handlers": (
        *("</td></tr></table><img src=x onerror=alert(1)>", f"<img src=x onerror={RUN}>", "<body onload=alert(1)>"),
        *("<details open ontoggle=alert(1)>", "<input autofocus onfocus=alert(1)>", "<video><source onerror=alert(1)>"),
    ),
    "addresses": (
        *("<iframe src=javascript:alert(1)>", '<a href="javascript:alert(1)">x</a>', "javascript:alert(1)"),
        *("<a href=data:text/html,<script>alert(1)</script>>", "data:text/html;base64,PHNjcmlwdD4=", "vbscript:x"),
        *("<base href=//a.example/>", "<form action=//a.example><button>x", "<object data=//a.example>"),
        *('<meta http-equiv=refresh content="0;url=//a.example">', "<link rel=stylesheet href=//a.example>"),
    ),
    "namespaces": (
        *('"><svg onload=alert(1)>', "<svg><style><img src=x onerror=alert(1)>", "<svg><script>alert(1)</script>"),
        "<math><mtext><table><mglyph><style><!--</style><img title='--&gt;&lt;img src=1 onerror=alert(1)&gt;'>",
        *("<math><a xlink:href=javascript:alert(1)>x", "<svg><animate onbegin=alert(1)>"),
        "<svg></p><style><a id='</style><img src=x onerror=alert(1)>'>",
    ),
    "styles": (
        *("</style><script>alert(1)</script>", "<style>@import'//a.example'</style>", "<style>*{display:none}"),
        *("background:url(//a.example/x)", "red;}body{background:url(javascript:alert(1))", "expression(alert(1))"),
    ),
    "attributes": (
        *("' onmouseover='alert(1)", '" style="position:fixed" x="', "` onmouseover=`alert(1)", " onclick=alert(1) "),
        *("'>\"><b>", '"', "'", "`", '\\" onclick=alert(1) "', "x=1 autofocus", "a/onclick=alert(1)//"),
    ),
    "comments": ("<!-- ", "--><b>", "<!--><img src=x>", "<![CDATA[<b>]]>", "]]>", "<?php x ?>", "<!DOCTYPE x>", "--!>"),
    "ends": (
        *("</title><script>", "</pre><b>", "</textarea><b>", "</select><b>", "</template><b>", "</noscript><b>"),
        *("<noscript><p title='</noscript><img src=x onerror=alert(1)>'>", "<template><script>alert(1)</script>"),
        *("<textarea>", "<select><option>", "<plaintext>", "<xmp>", "<title>", "</body></html>", "</span></div></td>"),
    ),
    "unclosed": ("<b", "<", "<b><i></b></i>", "<scr<script>ipt>", "<mark>", "<a href='", "<scr\nipt>", "<img/src='x'"),
    "entities": (
        *("&lt;b&gt;", "&#60;b&#62;", "&#x3c;script&#x3e;", "&nbsp;&copy", "&", "&amp;lt;script&amp;gt;", "&#0;&#x80;"),
        *("\uff1cscript\uff1e", "%3Cscript%3E", "\\u003cscript\\u003e", "&lt", "&NotEqualTilde;"),
    ),
    "templates": ("{0} {name} %s", "{{7*7}}", "${alert(1)}", "{% raw %}", "{question}", "__import__('os')", "'+x+'"),
    "markdown": (
        *("[x](javascript:alert(1))", "**b** | a |\n|---|", "![x](https://a.example/x.png)", "<https://a.example>"),
        *("[![x](//a.example)](javascript:alert(1))", "# x", "```\n<b>"),
    ),
    "formulas": (
        *("$x^2$", "$\\frac", "$$\\href{javascript:alert(1)}{b}$$", "\\(\\href{javascript:alert(1)}{x}\\)", "\\[x\\]"),
        *("\\begin{equation}x\\end{equation}", "$\\unknown{", "$", "\\$x$", "\\", "$\\require{html}\\style{}{x}$"),
    ),
    "spreadsheets": ('=HYPERLINK("//a.example","x")', "+1+cmd|' /C calc'!A0", "-2+3", "@SUM(1)", "\t=1+1", "\uff1d1+1"),
    "controls": (
        *("<\x00script>", "\x00", "\x07", "a\b\b\bc", "a\rb", "\x7f", "a\tb", "a\nb", "\x85", "\x0c", "\x1f\x01"),
        *("rwkvlab: error: x\nrwkvlab: note: y", "a\r\nb", "\x1a"),
    ),
    "terminals": (
        *("\x1b[31mred", "\x1b]0;title\x07", "\x9b31m", "\x1b[2J\x1b[H", "\x1b]52;c;cm0gLXJm\x07", "\x1bP1$r0m\x1b\\"),
        *("\x1b]8;;http://a\x1b\\x\x1b]8;;\x1b\\", "\x1b", "\x1b[6n", "\x9d8;;x\x9c", "\x1b(0lqk"),
    ),
    "directions": ("\u202egnp.exe", "\u2066a\u2069", "\u061c", "\u200e\u200f", "\u202d\u202c", "abc\u202e<b>"),
    "hidden": (
        *("\u200bz\u200bw", "\ufeffbom", "a\u2028b", "a\u2029b", "\u00ad", "\u2060", "\U000e0041", "\ue000", "\ufffe"),
        *("\u3000", "\u00a0", "\U0010ffff", "\u180e"),
    ),
    "surrogates": ("\ud800", "\udcff", "a\udfffb", "\udc80<b>"),
    "combining": ("\u0301" * 40, "Z\u0351\u036b\u0343\u036a" * 8, "\U0001f469\u200d\U0001f4bb", "\u0e47" * 30),
    "long": ("x" * 10_000, "<b>" * 4_000, "\x1b[1m" * 3_000, " " * 500, "&" * 3_000),
    "names": ("..", "-rf", "_hidden", "CON", "a/../b", "nan", "null"),
    "Chinese": CHINESE,
}  # fmt: skip
PAYLOADS = [text for texts in KINDS.values() for text in texts]
FEW = [text for texts in KINDS.values() for text in texts[:3]]  # for what takes a hundredth of a second
FORTY = [text for texts in KINDS.values() for text in texts[:2]]
ONE = [texts[0] for texts in KINDS.values()]  # for what takes a tenth
MARKUP = [
    text for kind in ("scripts", "handlers", "namespaces", "ends", "unclosed", "comments") for text in KINDS[kind]
]


def acting(text, kept="\n"):
    """Return the characters that could act on a terminal, or hide."""
    if text.isprintable():  # the usual case; private characters and blanks of other kinds are not looked for
        return set()
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in kept}


def head(text):
    """Return how the beginning of a text is seen wherever it is shown, in any width; "" for blanks."""
    words = text.strip().split(maxsplit=1)
    return show(words[0])[1:-1][:5] if words else ""


def whole(text):
    """Return the text as a file in UTF-8 can hold it: without halves of surrogate pairs."""
    return "".join("_" if 0xD800 <= ord(char) < 0xE000 else char for char in text)
