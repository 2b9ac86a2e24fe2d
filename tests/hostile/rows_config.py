"""Rows 60 to 71: Ai00 configs that lead out of the folder, name what is no state, take long, or are none."""

import functools
import os

from builders import heads, safe_of, saved
from corpus import Case

from rwkvlab.errors import ConfigError, PathError, UnknownNameError
from rwkvlab.states.ai00 import read_ai00

STATE = safe_of({key: value.half() for key, value in heads().items()}, {"format": "pt"})
UUID = "12345678-1234-5678-1234-567812345678"
BARE = b"\x80\x02cos\nsystem\n(X\x0c\x00\x00\x00touch canarytR."


def mounted(path):
    """Read a config and ask for every state in it, the honest one first."""
    shelf = read_ai00(path)
    if "good" in shelf:
        assert shelf["good"].wkv.shape == (2, 2, 8, 8)
    for name in [*shelf.unreadable, *shelf]:
        if name != "good":
            shelf[name]


def config(folder, text, extra=None):
    """A model folder with one honest state, and a Config.toml beside it."""
    models = folder / "assets" / "models"
    models.mkdir(parents=True)
    (models / "good.state").write_bytes(STATE)
    if extra:
        extra(models)
    path = folder / "Config.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


GOOD = '[model]\npath = "assets/models"\nname = "m.st"\n[[state]]\npath = "good.state"\nname = "good"\n'


def entry(fields):
    """A config with an honest entry, and one of these lines."""
    return GOOD + "[[state]]\n" + fields + "\n"


def case(row, name, text, error, words, extra=None):
    make = functools.partial(config, text=text, extra=extra)
    return Case(row, name, make, error, words, by=mounted, names_file=False)


LISTED = UnknownNameError
OUTSIDE = ["../x.state", "a/../../x.state", "/etc/passwd", "~/x.state", "$HOME/x.state", "http://x/y.state"]
OUTSIDE += [
    "file:///etc/passwd",
    "file:x",
    r"\\\\host\\share\\x.state",
    "C:\\\\x.state",
    "..\\\\x.state",
    "*.state",
    "?.state",
]
OUTSIDE += ["x | y", "<x>", "a\\u0000b", "a\\u001bb", "", "  "]
CASES = [
    case(60, f"path_{index}", entry(f'path = "{path}"'), LISTED, "state[1].path") for index, path in enumerate(OUTSIDE)
]
CASES += [
    case(60, "folder_missing", '[model]\npath = "../../nowhere"\n', PathError, "model.path: no folder"),
    case(60, "folder_nul", '[model]\npath = "a\\u0000b"\n', ConfigError, "model.path"),
    case(60, "folder_number", "[model]\npath = 5\n", ConfigError, "model.path"),
]


def out(models):
    (models.parent.parent / "outside.state").write_bytes(STATE)
    (models / "x.state").symlink_to("../../outside.state")


def folder_out(models):
    (models.parent.parent / "other").mkdir()
    (models.parent.parent / "other" / "x.state").write_bytes(STATE)
    (models / "sub").symlink_to("../../other")


def put(raw):
    return lambda models: (models / "x.state").write_bytes(raw)


THINGS = {
    "pickle": (put(BARE), "is a pickle"),
    "pipe": (lambda models: os.mkfifo(models / "x.state"), "named pipe"),
    "device": (lambda models: (models / "x.state").symlink_to("/dev/zero"), "link out of"),
    "folder": (lambda models: (models / "x.state").mkdir(), "folder"),
    "missing": (None, "x.state"),
    "dangling": (lambda models: (models / "x.state").symlink_to("nowhere"), "does not exist"),
    "loop": (lambda models: (models / "x.state").symlink_to("x.state"), "leads back"),
    "empty": (put(b""), "empty"),
    "page": (put(b"<html>404</html>"), "HTML page"),
    "gadget": (put(saved({"w": print})), ".print'"),
    "link_out": (out, "link out of"),
}
CASES += [
    case(61, f"a_{name}", entry('path = "x.state"'), LISTED, words, extra) for name, (extra, words) in THINGS.items()
]
CASES += [
    case(55, "link_out_of_the_models", entry('path = "x.state"'), LISTED, "link out of", out),
    case(55, "folder_out_of_the_models", entry('path = "sub/x.state"'), LISTED, "link out of", folder_out),
]
TWO = '[[state]]\npath = "good.state"\nname = "b"\n'
CASES += [
    case(62, "same_id", entry(f'path="good.state"\nname="a"\nid="{UUID}"') + TWO + f'id="{UUID}"', LISTED,
         "state[2].id"),
    case(62, "same_id_by_case", entry(f'path="good.state"\nid="{UUID.replace("5", "a")}"') + TWO
         + f'id="{UUID.replace("5", "A")}"', LISTED, "state[2].id"),
    case(62, "two_defaults", entry('path="good.state"\nname="a"\ndefault=true') + TWO + "default=true", LISTED,
         "state[2].default"),
]  # fmt: skip
FIELDS = {
    "id_bad": ('path = "good.state"\nid = "not-a-uuid"', "state[1].id: need a UUID"),
    "id_number": ('path = "good.state"\nid = 5', "state[1].id: need text"),
    "id_escape": ('path = "good.state"\nid = "\\u001b[2J"', "\\x1b"),
}
CASES += [case(63, name, entry(fields), LISTED, words) for name, (fields, words) in FIELDS.items()]
WRONG = {
    "path_number": ("path = 5", "state[1].path: need text"),
    "path_list": ('path = ["good.state"]', "state[1].path: need text"),
    "no_path": ('name = "x"', "state[1].path: missing"),
    "name_number": ('path = "good.state"\nname = 5', "state[1].name: need text"),
    "default_text": ('path = "good.state"\ndefault = "yes"', "state[1].default: need true or false"),
    "long_value": ('path = "good.state"\nname = [' + '"x",' * 9999 + "]", "state[1].name: need text"),
}
CASES += [case(64, name, entry(fields), LISTED, words) for name, (fields, words) in WRONG.items()]
CASES += [
    case(64, "one_bracket", '[model]\npath="assets/models"\n[state]\npath="good.state"', ConfigError, "[[state]]"),
    case(64, "state_text", 'state = "good.state"\n' + '[model]\npath="assets/models"', ConfigError, "[[state]]"),
    case(64, "state_list", 'state = ["good.state"]\n', ConfigError, "[[state]]"),
]
CASES += [
    case(67, name, GOOD.replace("good", "状态é").encode(coding), ConfigError, "not UTF-8")
    for name, coding in (("gbk", "gb18030"), ("utf_16", "utf-16"))
]
CASES += [
    case(67, "latin_1", entry('path = "été.state"').encode("latin-1"), ConfigError, "not UTF-8 at byte"),
    case(68, "gbk_that_is_utf8", entry('path = "\u05f4\u032c.state"'), LISTED, "no such"),
    case(68, "gbk_file_name", entry('path = "×´Ì¬.state"'), LISTED, "no such"),
    case(68, "other_form", entry('path = "e\\u0301te.state"'), LISTED, "no such"),
]
DEEP = {
    "arrays": "x = " + "[" * 2000 + "]" * 2000, "arrays_by_line": "x = " + "[\n" * 2000 + "]\n" * 2000,
    "inline_tables": "x = " + "{a=" * 2000 + "1" + "}" * 2000, "long_number": "x = " + "9" * 5000,
}  # fmt: skip
CASES += [case(69, name, text, ConfigError, "nested too deep") for name, text in DEEP.items()]
DOTS = ".".join("a" * 20_000)
CASES += [
    case(70, "dotted_key", DOTS + " = 1", ConfigError, "line 1: nested too deep"),
    case(70, "dotted_table", "\n[" + DOTS + "]", ConfigError, "line 2: nested too deep"),
    case(70, "dotted_in_a_table", "x = {" + DOTS + " = 1}", ConfigError, "line 1"),
    case(70, "two_mebibytes", "#" * (2 << 20), ConfigError, "at most 1,048,576"),
]
CASES += [
    case(71, "empty", "", ConfigError, "empty"),
    case(71, "yaml", "model:\n  path: assets/models\n", ConfigError, "not TOML"),
    case(71, "json", '{"model": {"path": "assets/models"}}', ConfigError, "not TOML"),
    case(71, "twice", "x = 1\nx = 2\n", ConfigError, "not TOML"),
    case(71, "table_twice", "[model]\n[model]\n", ConfigError, "not TOML"),
    case(71, "state_file", STATE, ConfigError, ""),
    case(71, "control", 'x = "\x1b[2J"', ConfigError, "not TOML"),
]
