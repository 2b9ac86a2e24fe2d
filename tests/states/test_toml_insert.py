"""New tables go behind the last of their kind, and no byte of the text moves."""

import time
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rwkvlab.states.toml_insert import insertion

NEW = [{"id": "1", "name": '文言文 "QA"\\', "path": "a b.state"}, {"id": "2", "name": "\x7f\t", "path": "c.state"}]
PIECES = [
    "# a comment [[state]]\n",
    "\n",
    "  \n",
    "\t# indented\n",
    '[[state]]\npath = "{i}.state" # [[state]]\n',
    "[[ state ]] # with blanks\n  path = 'x'\n",
    "[['state']]\nname = '''\n[[state]]\n[other]\n'''\npath = '[[x]]'\n",
    '[["state"]]\nname = """\\\n  [[state]] \\""" #\n""""\npath = "#\\""\n',
    "[[state]]\nlist = [ # [\n  '[[state]]', {{a = ']'}},\n\n  # [[state]]\n]\n",
    "[[state]]\n",
    "[[state]]\npath = 'sub'\n[state.more]\nx = 1\n[state.more.still]\ny.z = 2\n",
    "[table{i}]\nport = 65530\n",
    "[table{i}.'a.b']\nx = {{ y = [1, 2] }}\n",
    "[[lora{i}]]\nalpha = 192\n",
    "[[statement{i}]]\nstate = 'no'\n",
    "[other{i}.state]\npath = 'no'\n",
]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(st.sampled_from(PIECES), max_size=8),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.sampled_from(["", "top = 1\n", "# 配置\n[model]\npath = 'x'\n"]),
)
def test_what_was_there_stays_and_what_is_new_is_read(pieces, end, cut, head):
    text = (head + "".join(piece.format(i=i) for i, piece in enumerate(pieces))).replace("\n", end)
    text = text.removesuffix(end) if cut else text
    old = tomllib.loads(text)
    at, new = insertion(text, "state", NEW)
    whole = text[:at] + new + text[at:]
    assert tomllib.loads(whole) == old | {"state": [*old.get("state", []), *NEW]}
    assert end == "\n" or "\n" not in new.replace("\r\n", "") or "\n" not in text
    assert whole[: at + len(new)].endswith("\n")


@pytest.mark.parametrize(
    ("text", "behind"),
    [
        ("[[state]]\npath='a'\n\n[listen]\nport=1\n", "path='a'\n"),
        ("[[state]]\npath='a'\n# of the state\n\n# of the table\n[listen]\n", "# of the state\n"),
        ("[[state]]\npath='a'\n# of the table\n[listen]\n", "path='a'\n"),
        ("[[state]]\npath='a'\n\n# [[state]]\n# path='b'\n", "path='a'\n"),
        ("[[state]]\npath='a'\n# last line", "# last line"),
        ("[listen]\nport=1\n# end", "# end"),
        ("[[state]]\npath='a'\n[listen]\n[[state]]\npath='b'\n[x]\n", "path='b'\n"),
        ("[[state]]\npath='a'\n[state.x]\ny=1\n\n[listen]\n", "y=1\n"),
        ('[[state]]\nname="""a""""\n[listen]\nport=1\n', 'a""""\n'),
        ("[[state]]\nname='''a'''''\n[listen]\nport=1\n", "a'''''\n"),
    ],
)
def test_the_place_is_behind_the_last_table_of_the_kind(text, behind):
    at, new = insertion(text, "state", NEW)
    assert text[:at].endswith(behind) and text.count(behind) == 1
    assert "[[state]]\nid" in new and not new.endswith("\n\n\n")


def test_tables_stand_apart_by_one_empty_line():
    text = "[[state]]\npath = 'a'\n\n[listen]\nport = 1\n"
    at, new = insertion(text, "state", [{"path": "b"}, {"path": "c"}])
    assert text[:at] + new + text[at:] == (
        '[[state]]\npath = \'a\'\n\n[[state]]\npath = "b"\n\n[[state]]\npath = "c"\n\n[listen]\nport = 1\n'
    )
    assert insertion("", "state", [{"path": "b"}]) == (0, '[[state]]\npath = "b"\n')


def test_a_large_text_takes_no_long():
    text = "[[state]]\npath='a'\n" + "# a comment\n" * 60_000 + "x='''" + "\n[[state]]" * 20_000 + "'''\n"
    times = []
    for _ in range(3):
        start = time.perf_counter()
        insertion(text, "state", NEW)
        times.append(time.perf_counter() - start)
    assert min(times) < 2
