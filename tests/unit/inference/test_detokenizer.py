"""Text that comes token by token is the text that decoding all at once gives."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import settings as run
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from tokenizers import normalizers as norms

from superbloom.inference.detokenizer import Detokenizer, Vocabulary, VocabularyKind

TRAINING = ["hello world, hello there", "größer 漢字 naïve 👩‍🚀 family", "  indented\n\ttext"] * 4
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]


def byte_level() -> Tokenizer:
    """As GPT-2, llama 3, bloom, falcon: every token stands for bytes."""
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        TRAINING,
        trainers.BpeTrainer(
            vocab_size=330,
            special_tokens=["<|end|>", "<|start|>"],
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    backend.add_tokens(["<think>", "日記"])
    return backend


def byte_fallback(*, strip: bool) -> Tokenizer:
    """As llama 2 and mixtral (strip) or gemma (no strip): words with ▁, bytes for the rest."""
    words = ["▁", "h", "e", "l", "o", "▁hello", "▁world", "a", "▁a", "ß", "\n", "<unk>"]
    vocabulary = {word: place for place, word in enumerate([*words, *BYTES])}
    backend = Tokenizer(
        models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    backend.normalizer = norms.Replace(" ", "▁")
    parts = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*parts, *([decoders.Strip(" ", 1, 0)] if strip else [])])
    backend.add_special_tokens([AddedToken("</s>"), AddedToken("<s>")])
    return backend


def metaspace() -> Tokenizer:
    """As T5 and other unigram models: plain text tokens with ▁."""
    backend = Tokenizer(models.WordLevel({"▁hello": 0, "▁world": 1, "!": 2, "▁": 3, "?": 4}, "?"))
    backend.decoder = decoders.Metaspace()
    backend.add_special_tokens(["</s>"])
    return backend


BACKENDS = {
    "byte level": byte_level(),
    "byte fallback": byte_fallback(strip=True),
    "byte fallback, no strip": byte_fallback(strip=False),
    "metaspace": metaspace(),
}


def streamed(backend: Tokenizer, ids: list[int]) -> str:
    detokenizer = Detokenizer(Vocabulary.of(backend))
    return "".join(map(detokenizer.push, ids)) + detokenizer.flush()


def test_kinds_are_told_apart():
    kinds = {name: Vocabulary.of(backend).kind for name, backend in BACKENDS.items()}
    assert kinds == {
        "byte level": VocabularyKind.BYTE_LEVEL,
        "byte fallback": VocabularyKind.BYTE_FALLBACK,
        "byte fallback, no strip": VocabularyKind.BYTE_FALLBACK,
        "metaspace": VocabularyKind.TEXT,
    }


@given(ids=st.lists(st.integers(0, BACKENDS["byte level"].get_vocab_size() + 3), max_size=60))
@run(max_examples=500, deadline=None)
def test_byte_level_random_ids(ids):
    backend = BACKENDS["byte level"]
    assert streamed(backend, ids) == backend.decode(ids, skip_special_tokens=True)


@given(ids=st.lists(st.integers(0, 5), max_size=30))
@run(max_examples=300, deadline=None)
def test_metaspace_random_ids(ids):
    backend = BACKENDS["metaspace"]
    assert streamed(backend, ids) == backend.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("name", ["byte fallback", "byte fallback, no strip", "byte level"])
@given(text=st.text(max_size=40))
@run(max_examples=200, deadline=None)
@example(text="  two spaces")
@example(text="👩‍🚀ß漢 a")
def test_any_text_comes_back(name, text):
    backend = BACKENDS[name]
    ids = backend.encode(text, add_special_tokens=False).ids
    assert streamed(backend, ids) == backend.decode(ids, skip_special_tokens=True)


@given(
    pieces=st.lists(
        st.one_of(
            st.sampled_from(["h", "▁hello", "▁world", "▁a", "ß", "\n", "</s>"]).map(lambda t: [t]),
            st.characters(codec="utf-8", exclude_characters=" ").map(
                lambda c: [f"<0x{byte:02X}>" for byte in c.encode()]
            ),
        ),
        max_size=20,
    )
)
@run(max_examples=300, deadline=None)
def test_byte_fallback_characters_between_words(pieces):
    for name in ("byte fallback", "byte fallback, no strip"):
        backend = BACKENDS[name]
        ids = [backend.token_to_id(token) for piece in pieces for token in piece]
        assert streamed(backend, ids) == backend.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("name", ["byte level", "byte fallback"])
def test_a_character_comes_whole_or_not_at_all(name):
    backend = BACKENDS[name]
    detokenizer = Detokenizer(Vocabulary.of(backend))
    rocket = "🚀".encode()
    if name == "byte level":
        letters = pre_tokenizers.ByteLevel(False).pre_tokenize_str("🚀")[0][0]
        ids = [backend.token_to_id(letter) for letter in letters]
    else:
        ids = [backend.token_to_id(f"<0x{byte:02X}>") for byte in rocket]
    assert [detokenizer.push(number) for number in ids] == ["", "", "", "🚀"]
    assert [detokenizer.push(ids[0]), detokenizer.flush(), detokenizer.flush()] == [
        "",
        "\ufffd",
        "",
    ]


def test_an_unfinished_character_before_a_word_is_told():
    backend = BACKENDS["byte fallback"]
    ids = [backend.token_to_id(token) for token in ("▁hello", "<0xF0>", "▁world")]
    assert streamed(backend, ids) == "hello\ufffd world"


def test_control_tokens_and_unknown_ids_have_no_text():
    backend = BACKENDS["byte level"]
    end = backend.token_to_id("<|end|>")
    think = backend.token_to_id("<think>")
    assert streamed(backend, [end, 10**6, think, end]) == "<think>"
