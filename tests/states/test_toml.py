"""A config is read in little time however it is written, and only its keys count as deep."""

import time

import pytest

from rwkvlab.errors import ConfigError
from rwkvlab.states.toml import MAX_SIZE, as_id, parse

HEX = "1234567812345678123456781234567a"
UUID = "12345678-1234-5678-1234-56781234567a"
DOTS = ".b" * 30_000


@pytest.mark.parametrize(
    "text",
    [
        f'"\\""{DOTS}."x" = 1\n',
        f'"\'"{DOTS} = 1\n',
        f'x = {{ a = """"""", b{DOTS} = 1 }}\n',
        f'x = {{ a = """""""", b{DOTS} = 1 }}\n',
        f"x = {{ a = '''''''', b{DOTS} = 1 }}\n",
        f"x = '''\n'''\nb{DOTS} = 1\n",
        f"a{' . b' * 30_000} = 1\n",
        "a" + '."#"' * 30_000 + " = 1\n",
        f"[{'.'.join('h' * 65)}]\n" + "\n".join(".".join([f"k{i}", *"a" * 60]) + " = 1" for i in range(7500)),
    ],
    ids=range(9),
)
def test_no_way_to_write_a_string_hides_a_deep_key(text):
    start = time.process_time()
    with pytest.raises(ConfigError, match=r"line \d+: nested too deep"):
        parse("x", text)
    assert time.process_time() - start < 2


def test_the_costliest_keys_that_are_taken_do_not_cost_much():
    lines = "\n".join(f"[k{i}.a.a.a.a]" for i in range(60_000))[:MAX_SIZE].rpartition("\n")[0]
    start = time.process_time()
    assert len(parse("x", lines)) > 50_000
    assert time.process_time() - start < 8  # with 60 parts a key it was minutes


@pytest.mark.parametrize(
    "text", ['"""\\' * 250_000, '"\\"' * 300_000, "'''\\" * 250_000, "a " * 500_000, "a." * 500_000]
)
def test_what_is_never_closed_is_looked_through_once(text):
    start = time.process_time()
    with pytest.raises(ConfigError):
        parse("x", text)
    assert time.process_time() - start < 3


def test_dots_and_brackets_that_are_no_keys_are_no_depth():
    many = "a.b.c.d.e.f.g.h [[[[ " * 50
    text = f'x = """\n{many}\n"""\ny = [{"0.5, " * 100}]\nz = "{many}" # {many}\nw.\'a.b.c.d.e.f\'.c = \'{many}\'\n'
    assert parse("x", text)["y"] == [0.5] * 100
    with pytest.raises(ConfigError, match=r"line 2, the last"):
        parse("x", "x = 1\ny = [\n")


def test_the_line_of_a_deep_key_counts_those_of_strings_before_it():
    with pytest.raises(ConfigError, match="line 5: nested"):
        parse("x", "x = '''\n\n\n'''\na.b.c.d.e.f.g = 1\n")


def test_what_is_read_twice_is_equal_also_where_it_is_no_number():
    text = "x = nan\ny = [+nan, {z = -nan}]\nw = -0.5e3\n"
    assert parse("x", text) == parse("x", text) and parse("x", text)["w"] == -500.0


@pytest.mark.parametrize("text", [UUID, UUID.upper(), HEX, f"{{{UUID}}}", f"urn:uuid:{UUID}"])
def test_an_id_is_one_in_the_spellings_of_a_uuid(text):
    assert as_id(text) == UUID


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        f"{UUID}\n",
        f" {UUID}",
        HEX[:20] + "_" + HEX[21:],
        "1234567812345678123456781234_678",
        UUID.replace("1", "\u0661"),
        HEX.replace("1", "\uff11"),
        f"{{{UUID}",
        f"{UUID}}}",
        HEX[:-1],
        UUID.replace("-", "--"),
    ],
)
def test_what_only_python_takes_for_a_uuid_is_no_id(text):
    assert as_id(text) == ""
