"""The names of the wild say what they say, and no name raises."""

from dataclasses import fields, replace
from pathlib import Path
from urllib.parse import quote

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from rwkvlab.errors import ArgError
from rwkvlab.states.names import NameCard, parse_name

# each name, and below it what is to be read off it
NAMES = """
rwkv6-world-v3-7b-chn_文言文QA-20241114-ctx2048.pth
    arch=x060 kind=World data_version=v3 size=7B purpose=chn_文言文QA date=20241114 ctx=2048 ext=.pth
rwkv-x060-OnlyForChnNovel_小说扩写-14B-20240806-ctx4096.pth
    arch=x060 purpose=OnlyForChnNovel_小说扩写 size=14B date=20240806 ctx=4096 ext=.pth
rwkv-x060-chn_single_round_qa-3B-20240505-ctx1024.state
    arch=x060 purpose=chn_single_round_qa size=3B date=20240505 ctx=1024 ext=.state
rwkv-x060-chn_single_round_qa-7B-20240516-ctx2048.state
    arch=x060 purpose=chn_single_round_qa size=7B date=20240516 ctx=2048 ext=.state
rwkv-x060-eng_single_round_qa-1B6-20240516-ctx2048.pth
    arch=x060 purpose=eng_single_round_qa size=1.6B date=20240516 ctx=2048 ext=.pth
rwkv-x060-chn_文言文和古典名著_single_round_qa-7B-20240601-ctx2048.pth
    arch=x060 purpose=chn_文言文和古典名著_single_round_qa size=7B date=20240601 ctx=2048 ext=.pth
RWKV-6-World-3B-v2.1-chn_文言文QA
    arch=x060 kind=World size=3B data_version=v2.1 purpose=chn_文言文QA
RWKV-x060-World-7B-v2.1-20240507-ctx4096.pth
    arch=x060 kind=World size=7B data_version=v2.1 date=20240507 ctx=4096 ext=.pth
RWKV-x070-World-2.9B-v3-20250211-ctx4096.pth
    arch=x070 kind=World size=2.9B data_version=v3 date=20250211 ctx=4096 ext=.pth
rwkv-x070-2b9-world-v3-82%trained-20250203-ctx4k.pth
    arch=x070 size=2.9B kind=World data_version=v3 progress=82%trained date=20250203 ctx=4096 ext=.pth
RWKV-x070-Pile-164M-L33-D512
    arch=x070 kind=Pile size=164M geometry=L33-D512
rwkv7-g1a4-2.9b-20251118-ctx8192.pth
    arch=x070 series=g1a4 size=2.9B date=20251118 ctx=8192 ext=.pth
rwkv7a-g1d-0.1b-20260212-ctx8192.pth
    arch=x070a series=g1d size=0.1B date=20260212 ctx=8192 ext=.pth
rwkv7-g1i_preview3260-7.2b-20260716-ctx12288.pth
    arch=x070 series=g1i_preview3260 size=7.2B date=20260716 ctx=12288 ext=.pth
RWKV-4-Raven-14B-v11x-Eng99%-Other1%-20230501-ctx8192.pth
    arch=x040 kind=Raven size=14B data_version=v11x lang=Eng99%-Other1% date=20230501 ctx=8192 ext=.pth
RWKV-6-ABC-85M-v1-20240217-ctx1024-webrwkv.st
    arch=x060 kind=ABC size=85M data_version=v1 date=20240217 ctx=1024 purpose=webrwkv ext=.st
rwkv7-g1-2.9b-20250519-ctx4096-Q8_0.gguf
    arch=x070 series=g1 size=2.9B date=20250519 ctx=4096 quant=Q8_0 ext=.gguf
rwkv7-g1-2.9b-20250519-ctx4096_Q6_K.gguf
    arch=x070 series=g1 size=2.9B date=20250519 ctx=4096 quant=Q6_K ext=.gguf
rwkv7-g1-1.5b-int8.safetensors
    arch=x070 series=g1 size=1.5B quant=int8 ext=.safetensors
RWKV-5-World-0B4-v2-OnlyForTest_71%_trained-ctx4k.pth
    arch=x052 kind=World size=0.4B data_version=v2 progress=OnlyForTest_71%_trained ctx=4096 ext=.pth
RWKV-x070-World-450m-Chn-test1050.pth
    arch=x070 kind=World size=450M lang=Chn progress=test1050 ext=.pth
"""
LINES = NAMES.strip().splitlines()
REAL = dict(zip(LINES[::2], LINES[1::2], strict=True))
FIELDS = [field.name for field in fields(NameCard) if field.name not in ("text", "stem")]


@pytest.mark.parametrize("name", REAL)
def test_a_real_name_says_what_it_says(name):
    card = parse_name(name)
    assert {field: str(getattr(card, field)) for field in FIELDS if getattr(card, field)} == dict(
        pair.split("=") for pair in REAL[name].split()
    )
    assert card.text == name
    assert card.stem + card.ext == name


def test_a_path_and_a_percent_encoded_name_are_read_too():
    card = parse_name("models/states\\RWKV-6-World-3B-v2.1-chn_%E6%96%87%E8%A8%80%E6%96%87QA.PTH")
    assert (card.purpose, card.ext, card.size) == ("chn_文言文QA", ".pth", "3B")
    assert parse_name("a%2Fb.pth").text == "b.pth"


def test_the_order_of_the_parts_is_free():
    a, b = parse_name("ctx4096-3B-World-RWKV-6-v2.1.pth"), parse_name("RWKV-6-World-3B-v2.1-ctx4096.pth")
    assert all(getattr(a, field) == getattr(b, field) for field in FIELDS)


def test_what_ai00_requires_and_a_name_lacks_is_listed():
    assert parse_name("rwkv-x060-chn_qa-3B.state").missing == ("kind",)
    assert parse_name("emoji.pth").missing == ("arch", "kind", "size")
    assert parse_name("emoji.pth").purpose == "emoji"


@settings(max_examples=100, deadline=None)
@given(
    st.text()
    | st.lists(st.sampled_from(["rwkv", "-", "x060", "3B", "%", "_", "ctx", "9" * 30, "Q8_0", ".pth"])).map("".join)
)
def test_no_name_raises(name):
    card = parse_name(name)
    assert card.text.endswith(card.stem + card.ext) or card.ext


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "name", ["a" * 10**6, "-" * 10**6, "1_" * 10**5 + "x", "%" * 10**5, None, 5, b"x", "", "\0", "\ud800", "/"]
)
def test_no_odd_name_raises_or_hangs(name):
    parse_name(name)


class Rude:
    def __str__(self):
        raise RuntimeError

    @property
    def __class__(self):
        raise RuntimeError


def test_no_odd_object_raises():
    for name in (Rude(), b"\xff\x00.pth", 1e400, [], Path("a/b")):
        assert type(parse_name(name)) is NameCard
    assert parse_name(b"a/emoji-3B.pth").said() == parse_name(Path("a/emoji-3B.pth")).said()


# every kind of token of the grammar: what is written, and what it says
TOKENS = """
    arch rwkv6=x060 rwkv-6=x060 RWKV-6=x060 RWKV-7=x070 rwkv7a=x070a RWKV-7b=x070b rwkv4=x040 RWKV-8=x080 x060=x060
    arch X070=x070 x052=x052 rwkv5=x052 RWKV-5.2=x052 RWKV-5.1=x051 rwkv-x060=x060
    series g1=g1 g1a4=g1a4 g0b=g0b G1D=g1d g1i_preview3260=g1i_preview3260
    kind World=World world=World PILE=Pile raven=Raven Novel=Novel chnnovel=ChnNovel JPN=Jpn midi=MIDI
    kind abc=ABC music=Music chntuned=CHNtuned JPNTUNED=JPNtuned
    size 1.5B=1.5B 2.9b=2.9B 450m=450M 1B5=1.5B 1B6=1.6B 2b9=2.9B 0B4=0.4B 14B=14B 164M=164M 0.1b=0.1B 13.3B=13.3B
    data_version v2.1=v2.1 v3=v3 V2.8=v2.8 v12=v12 v11x=v11x
    progress 84%_trained=84%_trained 65%trained=65%trained 80_trained=80_trained fixed=fixed final=final preview=preview
    progress OnlyForTest_71%_trained=OnlyForTest_71%_trained temp=temp test1050=test1050 step-100=step-100
    lang Eng98%=Eng98% other2%=Other2% Chn=Chn eng=Eng CHNENG=ChnEng Eng99%-Other1%=Eng99%-Other1%
    date 20241114=20241114 20990101=20990101
    ctx ctx2048=2048 ctx4k=4096 ctx32k=32768 CTX8192=8192
    geometry L33-D512=L33-D512 D512-L33=L33-D512 l24=L24
    purpose chn_文言文QA=chn_文言文QA OnlyForChnNovel_小说扩写=OnlyForChnNovel_小说扩写 webrwkv=webrwkv
    purpose eng_single_round_qa=eng_single_round_qa 20241399=20241399 ctx=ctx L=L x09=x09 ctx1234567890=ctx1234567890
    quant Q8_0=Q8_0 Q6_K=Q6_K q4k=q4k int8=int8 FP16=FP16 Q4_K_M=Q4_K_M bf16=bf16 nf4=nf4
"""
WRITTEN = [(line.split()[0], *pair.split("=")) for line in TOKENS.strip().splitlines() for pair in line.split()[1:]]


@pytest.mark.parametrize(("field", "token", "value"), WRITTEN)
def test_every_kind_of_part_is_known_alone_and_among_others(field, token, value):
    assert {key: str(said) for key, said in parse_name(token).said().items()} == {field: value}
    others = {"arch": "x070", "size": "3B", "purpose": "emoji", "ctx": 512, "ext": ".pth"}
    written = {"arch": "RWKV-7", "size": "3B", "purpose": "emoji", "ctx": "ctx512"}
    del others[field if field in others else "ctx"], written[field if field in written else "ctx"]
    said = parse_name("-".join([*written.values(), token]) + ".PTH").said()
    assert {key: str(v) for key, v in said.items()} == {key: str(v) for key, v in (others | {field: value}).items()}


@pytest.mark.parametrize("ext", [".pth", ".st", ".state", ".safetensors", ".prefab", ".gguf", ".bin"])
def test_every_extension_is_known(ext):
    assert parse_name(f"emoji{ext.upper()}").said() == {"purpose": "emoji", "ext": ext}


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("x-ctx4096_Q6_K.gguf", {"purpose": "x", "ctx": 4096, "quant": "Q6_K", "ext": ".gguf"}),
        ("emoji_FP16-3B", {"purpose": "emoji", "quant": "FP16", "size": "3B"}),
        ("chn_小说_71%_trained-3B", {"purpose": "chn_小说", "progress": "71%_trained", "size": "3B"}),
        ("World-JPN", {"kind": "World", "lang": "Jpn"}),
        ("JPN-World", {"kind": "World", "lang": "Jpn"}),
        ("3B-7B", {"size": "3B", "purpose": "7B"}),
        ("rwkv-12.pth", {"purpose": "12", "ext": ".pth"}),
        ("rwkv-7 (1).pth", {"purpose": "7", "ext": ".pth"}),
        ("RWKV-v6-Finch-7B.pth", {"arch": "x060", "size": "7B", "purpose": "Finch", "ext": ".pth"}),
        ("rwkv-v7-World-v3", {"arch": "x070", "kind": "World", "data_version": "v3"}),
        ("RWKV-v5.2-v6", {"arch": "x052", "data_version": "v6"}),
        ("World-v6", {"kind": "World", "data_version": "v6"}),
        ("rwkv-step-100.pth", {"progress": "step-100", "ext": ".pth"}),
        ("82%faster", {"purpose": "82%faster"}),
        ("2.5T-3B", {"purpose": "2.5T", "size": "3B"}),
    ],
)
def test_parts_that_touch_are_told_apart(name, said):
    assert parse_name(name).said() == said


@pytest.mark.parametrize(
    "copy",
    [
        "{} (1)",
        "{}(12)",
        "{} - Copy",
        "{} - Copy (2)",
        "{} - 副本",
        "{} - 副本 (3)",
        "copy of {}",
        "Copy of {} (1)",
        "{} (copy)",
    ],
)
def test_the_marks_of_a_copy_are_no_part_of_what_it_says(copy):
    name = copy.format("rwkv-x060-World-3B-emoji-ctx2048")
    card = parse_name(f"{name}.pth")
    assert card.said() == parse_name("rwkv-x060-World-3B-emoji-ctx2048.pth").said() and card.stem == name


@pytest.mark.parametrize("name", ["copy", "(1)", "Copy", "副本", "copy of", "emoji_(1)_x", "hard copy"])
def test_a_purpose_that_looks_like_such_a_mark_is_kept(name):
    assert parse_name(f"{name}.pth").purpose == name


@pytest.mark.parametrize("name", ["rwkv-6.pth", "rwkv-7-state.pth", "runs/rwkv-5.pth"])
def test_the_epoch_in_a_trainer_s_file_name_is_no_architecture(name):
    assert parse_name(name).arch == ""
    assert parse_name("RWKV-6.pth").arch == parse_name("rwkv-6").arch == "x060"


@pytest.mark.parametrize("name", REAL)
def test_a_real_name_written_anew_says_the_same(name):
    card = parse_name(name)
    again = parse_name(card.format(required=False))
    assert again.said() == card.said()
    assert again.format(required=False) == again.text


def test_a_name_is_written_as_the_community_does():
    card = NameCard(arch="x060", kind="World", size="3B", purpose="chn_文言文QA", data_version="v2.1", ext=".state")
    card = replace(card, date="20241114", ctx=2048)
    assert card.format() == "rwkv-x060-World-3B-chn_文言文QA-v2.1-20241114-ctx2048.state"
    assert replace(card, arch="x070a", series="g1d", kind="", ctx=None, quant="Q8_0").format(required=False) == (
        "rwkv7a-g1d-3B-chn_文言文QA-v2.1-20241114-Q8_0.state"
    )


def test_fields_that_ai00_requires_are_asked_for():
    with pytest.raises(ArgError, match=r"kind, size, purpose are empty.*fill in, or pass required=False"):
        NameCard(arch="x070").format()
    with pytest.raises(ArgError, match="purpose is empty"):
        NameCard(arch="x070", kind="World", size="3B").format()
    assert NameCard(arch="x070").format(required=False) == "rwkv-x070"
    with pytest.raises(ArgError, match="is empty"):
        NameCard().format(required=False)


@pytest.mark.parametrize(
    ("field", "value", "words"),
    [
        ("purpose", "3B", r"purpose: '3B' would be read back as size '3B'; write it as in chn_文言文QA"),
        ("purpose", "qa-chn", "as purpose 'qa', lang 'Chn'"),
        ("purpose", "a--b", "as purpose 'a-b'"),
        ("purpose", " a", "as purpose 'a'"),
        ("purpose", "rwkv", "says nothing in a name"),
        ("purpose", "emoji_fp16", "quant 'fp16'"),
        ("purpose", "emoji (1)", "as purpose 'emoji'"),
        ("purpose", "copy of a", "as purpose 'a'"),
        ("purpose", "%41", "would be read back as .*purpose 'A'"),
        ("purpose", "a/b", r"'/' at position \d+ is not allowed; use letters"),
        ("purpose", "a\x1b", r"'\\x1b' at position"),
        ("purpose", "a\u202eb", r"'\\u202e' at position"),
        ("purpose", "a\ud800b", r"'\\ud800' at position"),
        ("purpose", "文" * 70, "is 2.. bytes long, need at most 200; shorten"),
        ("purpose", 5, "purpose: need a text"),
        ("size", "big", "size: 'big' would be read back as purpose 'big'; write it as in 0.4B"),
        ("size", "2b9", "as size '2.9B'"),
        ("arch", "RWKV-7", "arch: 'RWKV-7' would be read back"),
        ("arch", "x070c", "arch: 'x070c' would"),
        ("kind", "world", "as kind 'World'"),
        ("date", "20241332", "date: '20241332'"),
        ("ctx", -1, "ctx: need a number of tokens"),
        ("ctx", 10**9, "ctx: need a number of tokens"),
        ("ctx", True, "ctx: need an integer"),
        ("ctx", "4k", "ctx: need an integer"),
        ("ext", ".txt", "ext: '.txt'"),
        ("lang", "Jpn-x", "lang: 'Jpn-x' would"),
    ],
)
def test_what_a_name_cannot_say_is_refused_not_lost(field, value, words):
    card = NameCard(arch="x070", kind="World", size="3B", purpose="emoji", ext=".state")
    with pytest.raises(ArgError, match=words):
        replace(card, **{field: value}).format()
    with pytest.raises(ArgError, match="ctx: need a number"):
        replace(card, ctx=10**5000).format()  # more digits than Python prints


def of(pattern):
    return st.from_regex(pattern, fullmatch=True)


def optional(strategy, nothing=""):
    return st.just(nothing) | strategy


WORD = st.text(st.sampled_from("abQxS文言小说扩写_0379é. "), min_size=1, max_size=10)
CARDS = st.builds(
    NameCard,
    arch=optional(st.sampled_from(["x040", "x052", "x051", "x060", "x070", "x080", "x070a", "x060b", "x071"])),
    series=optional(of(r"g[0-9][a-z]?[0-9]?(_preview[0-9]{1,4})?")),
    kind=optional(st.sampled_from(["World", "Pile", "ChnNovel", "Jpn", "MIDI", "JPNtuned"])),
    size=optional(of(r"[0-9]{1,3}(\.[0-9]{1,2})?[BM]")),
    data_version=optional(of(r"v[0-9]{1,2}(\.[0-9])?[a-z]?")),
    purpose=optional(WORD | st.tuples(WORD, WORD).map("-".join)),
    progress=optional(of(r"[0-9]{1,2}[%_]?trained|OnlyForTest_[0-9]{2}%_trained|fixed|test[0-9]{1,4}|step-[0-9]{1,6}")),
    lang=optional(of(r"(Eng|Other|Chn)[0-9]{2}%(-Other[0-9]%)?|Chn|ChnEng|Jpn")),
    date=optional(of(r"20[0-9]{2}(0[1-9]|1[0-2])([01][1-9]|20)")),
    ctx=optional(st.integers(0, 10**9 - 1), None),
    geometry=optional(of(r"L[0-9]{1,2}(-D[0-9]{1,4})?")),
    quant=optional(st.sampled_from(["Q8_0", "Q6_K", "q4k", "int8", "FP16", "Q4_K_M"])),
    ext=optional(st.sampled_from([".pth", ".st", ".state", ".safetensors", ".gguf"])),
)


@settings(max_examples=250, deadline=None)
@given(CARDS, st.randoms(use_true_random=False))
def test_what_is_written_is_read_back_in_any_order_and_encoding(card, random):
    try:
        name = card.format(required=False)
    except ArgError:
        # only a purpose may be refused, or a Jpn that could be kind and language, or nothing at all
        plain = replace(card, purpose="", lang="" if card.lang == "Jpn" else card.lang)
        assert card.purpose or card.lang == "Jpn" or not plain.said().keys() - {"ext"}
        assume(plain.said().keys() - {"ext"})
        card, name = plain, plain.format(required=False)
    assert parse_name(name).said() == card.said()
    said = {key: value for key, value in card.said().items() if key != "ext"}
    written = {"arch": NameCard(arch=card.arch or "x070").format(required=False), "ctx": f"ctx{card.ctx}"}
    parts = [written.get(key, value) for key, value in said.items()]
    random.shuffle(parts)
    shuffled = "-".join(parts) + card.ext
    assert parse_name(shuffled).said() == card.said()
    assert parse_name(f"models/RWKV-4-1B/{quote(shuffled)}").said() == card.said()
    assert parse_name(quote(f"models/{shuffled}", safe="")).said() == card.said()


@settings(max_examples=200, deadline=None)
@given(
    st.text() | st.lists(st.sampled_from(["-", "_", "%", ".", *(t[1] for t in WRITTEN), "rwkv", "%2D"])).map("".join)
)
def test_any_name_is_written_anew_as_it_was_read_or_refused(name):
    card = parse_name(name)
    try:
        again = card.format(required=False)
    except ArgError:
        return
    assert parse_name(again).said() == card.said()
