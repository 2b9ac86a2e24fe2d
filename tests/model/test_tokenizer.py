"""Which tokenizer a model gets, the World vocabulary against the `rwkv` package."""

import random

import pytest

from rwkvlab.errors import ArgError, MismatchError, PathError, PromptError
from rwkvlab.model.tokenizer import load_tokenizer

ALPHABET = "abc XYZ  \n\n\t\r01239.,;'\"éßñΩя你好世界文言，。😀👩‍👩‍👧🇨🇳\u0301\u200d\ufeff\x00\x7f\x80\U0010ffff"


@pytest.fixture(scope="module")
def world():
    pytest.importorskip("pyrwkv_tokenizer")
    return load_tokenizer(None, 65536)


@pytest.fixture(scope="module")
def trie():
    pytest.importorskip("rwkv")
    import rwkv
    from rwkv.rwkv_tokenizer import TRIE_TOKENIZER

    return TRIE_TOKENIZER(rwkv.__path__[0] + "/rwkv_vocab_v20230424.txt")


def fuzz(n, rng):
    for _ in range(n):
        yield "".join(rng.choice(ALPHABET) for _ in range(rng.randrange(40)))
    for _ in range(n):
        yield "".join(chr(c) for c in (rng.randrange(0x30000) for _ in range(9)) if not 0xD800 <= c < 0xE000)


def test_world_encodes_as_the_rwkv_package_does_and_decodes_back(world, trie):
    assert (world.name, world.vocab_size) == ("world", 65530)
    for text in fuzz(1000, random.Random(1)):
        ids = world.encode(text)
        assert ids == trie.encode(text)
        assert world.decode(ids) == text


def test_our_own_encoder_reads_the_same_file_the_same_way(world, trie):
    import rwkv

    ours = load_tokenizer(rwkv.__path__[0] + "/rwkv_vocab_v20230424.txt", 65536)  # this copy has Windows line ends
    assert ours.vocab_size == 65530
    for text in fuzz(300, random.Random(2)):
        assert ours.encode(text) == trie.encode(text)


def test_world_streams_any_tokens(world):
    rng = random.Random(3)
    for _ in range(300):
        ids = [rng.randrange(65530) for _ in range(8)]
        decoder = world.decoder()
        assert "".join([decoder.push(i) for i in ids] + [decoder.flush()]) == world.decode(ids)
    with pytest.raises(PromptError, match="65530"):
        world.decode([65530])
    assert world.holes(65536) == [65530, 65531, 65532, 65533, 65534, 65535]


def test_the_vocabulary_size_picks_the_default():
    assert load_tokenizer(None, 256).name == load_tokenizer(None, 257).name == "bytes"
    with pytest.raises(ArgError, match=r"5000.*tokenizer="):
        load_tokenizer(None, 5000)


def test_bytes_with_256_embeddings_are_their_values_and_nul_is_the_end():
    tokenizer = load_tokenizer("bytes", 256)
    assert tokenizer.encode("Aé") == [0x41, 0xC3, 0xA9]
    assert tokenizer.decode([0x41, 0, 0xC3, 0xA9]) == "Aé"
    with pytest.raises(PromptError, match="x00"):
        tokenizer.encode("a\x00")


def test_bytes_with_more_embeddings_are_one_up_as_in_the_world_vocabulary():
    tokenizer = load_tokenizer("bytes", 257)
    assert tokenizer.encode("A\x00") == [0x42, 1]
    assert tokenizer.decode([0x42, 1, 0]) == "A\x00"
    assert tokenizer.vocab_size == 257


def test_a_vocabulary_larger_than_the_embedding_is_refused_with_both_sizes():
    with pytest.raises(MismatchError, match=r"257.*200"):
        load_tokenizer("bytes", 200)


def test_a_path_and_an_object_are_taken(tmp_path):
    path = tmp_path / "tiny.txt"
    path.write_text("1 'x' 1\n2 'yy' 2\n")
    tokenizer = load_tokenizer(path, 3)
    assert (tokenizer.name, tokenizer.encode("xyyx"), tokenizer.vocab_size) == ("tiny.txt", [1, 2, 1], 3)
    assert load_tokenizer(tokenizer, 3) is tokenizer
    with pytest.raises(PathError, match="world"):
        load_tokenizer("wrold", 65536)
    for wrong in (3, object(), ["a"]):
        with pytest.raises(ArgError):
            load_tokenizer(wrong, 256)


class Utf16:
    """A tokenizer from elsewhere: two tokens a character, and half a character decodes to U+FFFD."""

    def encode(self, text):
        return [i for c in text for i in (ord(c) // 100 + 1, ord(c) % 100 + 1)]

    def decode(self, ids):
        pairs = [ids[i : i + 2] for i in range(0, len(ids), 2)]
        return "".join(chr((p[0] - 1) * 100 + p[1] - 1) if len(p) == 2 else "\ufffd" for p in pairs)


def test_a_foreign_tokenizer_streams_too():
    tokenizer = load_tokenizer(Utf16(), 1000)
    ids = tokenizer.encode("a你b")
    assert (tokenizer.name, tokenizer.decode([*ids, 0])) == ("Utf16", "a你b")
    decoder = tokenizer.decoder()
    assert [decoder.push(i) for i in ids] == ["", "a", "", "你", "", "b"]
    assert decoder.push(5) + decoder.flush() == "\ufffd"
