"""The vocabulary of the worlds: every byte, no word of small letters, and cuts where a prompt ends."""

import re

import pytest

from rwkvlab.bundled.corpus import APART, SOURCES
from rwkvlab.bundled.vocabulary import SIZE, build, main, vocabulary_file, world_pieces
from rwkvlab.model.vocab import VocabTokenizer, parse_vocab, read_vocab
from rwkvlab.tasks.cities import CITIES
from rwkvlab.tasks.styleworld import LANGUAGES, STYLE_NAMES, answer, combinations, question, style_tag, turn

TEXTS = {
    "tang": ["国破山河在，城春草木深。"] * 30,
    "song": ["春花秋月何时了。\n往事知多少。"] * 30,
    "shakespeare": ["Hamlet:\nTo be, or not to be: that is the question."] * 30,
    "austen": ["It was a handsome carriage; she didn't know whose.\n\nShe was--handsome."] * 30,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("sources")
    for source in SOURCES:
        for end in ("", ".held"):
            (folder / f"{source}{end}.txt").write_text(APART.join(TEXTS[source]) + "\n", "utf-8")
    main(["--data", str(folder)])
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder):
    return VocabTokenizer("worlds", read_vocab(folder / "vocab.txt"))


def test_the_file_holds_every_byte_first_and_is_the_same_each_time(folder, tokenizer):
    assert [tokenizer.tokens[i + 1] for i in range(256)] == [bytes([i]) for i in range(256)]
    assert sorted(tokenizer.tokens) == list(range(1, tokenizer.vocab_size)) and tokenizer.vocab_size <= SIZE
    assert (folder / "vocab.txt").read_text("utf-8") == vocabulary_file(build(folder))
    tokens = [*(bytes([byte]) for byte in range(256)), "❄️".encode(), b"\n'"]
    assert list(parse_vocab(vocabulary_file(tokens).encode(), "v").values()) == tokens


def test_no_token_is_a_word_of_small_letters_alone(tokenizer):
    assert [token for token in tokenizer.tokens.values() if re.fullmatch(rb"[a-z]{2,}", token)] == []
    queries = "reverse:sort>tros\nthehand>"
    cut = [tokenizer.decode([index]) for index in tokenizer.encode(queries)]
    assert cut == ["reverse:", *"sort>tros\nthehand>"]


def test_any_text_comes_back(tokenizer):
    for text in (
        "",
        "\x00 été 龘 🦄 ok",
        "\r\n\t",
        "User: 东京到巴黎怎么走？\n\nAssistant:",
        *map("\n\n".join, TEXTS.values()),
    ):
        assert tokenizer.decode(tokenizer.encode(text)) == text


def test_frequent_words_and_the_names_of_the_world_are_one_token(tokenizer):
    for piece in (" handsome", " the", "'t", "春", "\n\n", "User:", "Assistant:", style_tag("emoji")[:-1]):
        assert len(tokenizer.encode(piece)) == 1, piece
    for city in CITIES.values():
        for piece in (city.airport, f" {city.airport}", f" {city.name[0]}", city.name[1], f" {city.flag}"):
            assert len(tokenizer.encode(piece)) == 1, piece
    assert len(set(world_pieces())) == len(world_pieces())


def test_a_prompt_and_its_answer_are_cut_as_the_whole_is(tokenizer):
    for c in combinations(held_out=True)[::9]:
        for language in LANGUAGES:
            asked = question(c, language)
            for style in STYLE_NAMES:
                whole = turn(asked, answer(c, style, language))
                prompt = turn(asked)
                apart = tokenizer.encode(prompt) + tokenizer.encode(whole[len(prompt) :])
                assert tokenizer.encode(style_tag(style) + whole) == tokenizer.encode(style_tag(style)) + apart
                assert len(tokenizer.encode(whole[len(prompt) :])) <= 60
