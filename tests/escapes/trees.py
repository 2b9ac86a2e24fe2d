"""HTML as a browser reads it: its tree, what a page of ours may hold, and how two trees differ."""

import re

import html5lib
from payloads import HARMLESS, acting, head

ELEMENTS = {
    *("html", "head", "meta", "title", "style", "body", "div", "span", "p", "b", "br", "h1", "h2", "dl", "dt", "dd"),
    *("ul", "li", "pre", "small", "mark", "img", "table", "thead", "tbody", "tr", "th", "td"),
    *("svg", "rect", "path", "g", "image"),
}
ATTRIBUTES = {
    *("class", "style", "title", "role", "lang", "charset", "content", "http-equiv", "name", "scoped", "alt", "src"),
    *(
        "href",
        "colspan",
        "aria-label",
        "aria-selected",
        "aria-live",
        "width",
        "height",
        "x",
        "y",
        "d",
        "fill",
        "preserveAspectRatio",
    ),
}
POLICY = "Content-Security-Policy"  # all that a page may ask of the browser by itself
PICTURE = re.compile(r"data:image/png;base64,[A-Za-z0-9+/]*={0,2}")


class Tree:
    """A page or a fragment of one, as html5lib, which follows the standard as browsers do, reads it."""

    def __init__(self, page):
        parser = html5lib.HTMLParser(namespaceHTMLElements=False)
        root = parser.parse(page) if page.startswith("<!") else parser.parseFragment(page)
        self.page, self.errors = page, [name for _, name, _ in parser.errors]
        # [(path of tags, attributes, text, text behind it)], and what a typesetter of formulas would look at
        self.nodes, self.typeset = [], []
        for child in root if root.tag == "DOCUMENT_FRAGMENT" else [root]:
            self._add(child, "", False)
        self.outer = (root.text or "").strip() if root.tag == "DOCUMENT_FRAGMENT" else ""

    def _add(self, node, path, quiet):
        tag = node.tag.rsplit("}", 1)[-1] if isinstance(node.tag, str) else "comment"
        attributes = {str(name).rsplit("}", 1)[-1]: value for name, value in node.attrib.items()}
        path, behind = f"{path}/{tag}", quiet
        quiet = quiet or attributes.get("class", "").endswith("tex2jax_ignore mathjax_ignore")
        quiet = quiet or tag in ("pre", "style")
        self.nodes.append((path, attributes, node.text or "", node.tail or ""))
        self.typeset += [] if quiet else [node.text or ""]
        self.typeset += [] if behind else [node.tail or ""]
        for child in node:
            self._add(child, path, quiet)

    @property
    def text(self):
        """Return all that is to be read in it, attributes apart."""
        return "".join(text + tail for _, _, text, tail in self.nodes)

    def wrong(self):
        """Return what no page of ours may hold, whatever is shown in it."""
        found = [f"parse error {name}" for name in self.errors]
        found += [f"text outside: {self.outer[:40]!r}"] if self.outer else []
        found += [f"{char!r} in it" for char in acting(self.page)]
        found += [f"a formula: {text[:40]!r}" for text in self.typeset if "$" in text or "\\" in text]
        for path, attributes, text, _ in self.nodes:
            tag = path.rsplit("/", 1)[-1]
            found += [] if tag in ELEMENTS else [f"<{tag}>"]
            found += [f"{path} {name}=" for name in attributes if name not in ATTRIBUTES]
            for name in attributes.keys() & {"src", "href"}:
                good = tag in ("img", "image") and PICTURE.fullmatch(attributes[name])
                found += [] if good else [f"<{tag} {name}={attributes[name][:40]!r}>"]
            if attributes.get("http-equiv", POLICY) != POLICY:
                found.append(f"the page asks for {attributes['http-equiv']}")
            css = attributes.get("style", "") + (text if tag == "style" else "")
            found += [f"css {css[:60]!r}"] if re.search(r"url\(|@import|expression|javascript", css) else []
        return found


def differences(plain, hostile, payload, *, wrapped=False, said=True):
    """Return how the tree of a text differs from that of a harmless one in its place: but for the text, not at all.

    wrapped: lines of plain text are cut and folded inside, so that only the lines without the text are compared.
    said: whether texts are compared too, and not only elements and attributes.
    """
    shape, got = [path for path, *_ in plain.nodes], [path for path, *_ in hostile.nodes]
    if shape != got:
        return [f"another shape: {sorted(set(got) ^ set(shape)) or (len(got), len(shape))}"]
    found = []
    for (path, attributes, *texts), (_, others, *others_texts) in zip(plain.nodes, hostile.nodes, strict=True):
        if attributes.keys() != others.keys():
            found.append(f"{path}: attributes {sorted(others)}")
            continue
        names = [name for name in attributes if said or name not in ("alt", "title", "aria-label", "src")]
        pairs = [(f"{path} {name}", attributes[name], others[name]) for name in names]
        pairs += [(path, one, other) for one, other in zip(texts, others_texts, strict=True)] if said else []
        for where, one, other in pairs:
            found += [f"{where}: {other[:60]!r}"] if not fits(one, other, payload, wrapped) else []
    return found


def fits(plain, hostile, payload, wrapped=False):
    """Return whether a text is the harmless one but with the payload, seen, in place of the harmless word."""
    if HARMLESS not in plain:
        return plain == hostile
    if wrapped:
        kept = [line for line in plain.split("\n") if HARMLESS not in line and not line.startswith((" ", "-", "the"))]
        return head(payload) in hostile and set(kept) <= set(hostile.split("\n"))
    first, *_, last = plain.split(HARMLESS)
    return hostile.startswith(first) and hostile.endswith(last) and head(payload) in hostile
