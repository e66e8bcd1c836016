"""Token ids to text, one at a time: whole characters only, the same text as decoding all at once.

Most tokens are pieces of bytes, so a character may arrive in several tokens. Three kinds of
vocabulary are told apart: byte-level (every token stands for bytes), byte-fallback (some tokens
are single bytes) and plain text. What a token adds to the text depends on at most the one before
it (a leading space is dropped only at the very start), so a push costs the same at any length.
"""

from __future__ import annotations

import codecs
import json
import re
from dataclasses import dataclass
from enum import StrEnum
from functools import cache
from typing import Any

import tokenizers

BYTE_TOKEN = re.compile(r"<0x([0-9A-F]{2})>")


class VocabularyKind(StrEnum):
    """What a vocabulary's tokens are made of."""

    BYTE_LEVEL = "byte_level"
    BYTE_FALLBACK = "byte_fallback"
    TEXT = "text"


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """A tokenizer with what decoding needs to know of it; made once, shared by answers."""

    backend: tokenizers.Tokenizer
    kind: VocabularyKind
    control_ids: frozenset[int]
    """Control tokens, which have no text."""

    @classmethod
    def of(cls, backend: tokenizers.Tokenizer) -> Vocabulary:
        added = backend.get_added_tokens_decoder()
        control_ids = frozenset(number for number, token in added.items() if token.special)
        return cls(backend, _kind(backend), control_ids)


class Detokenizer:
    """The text of one answer. Bytes that are no UTF-8 become U+FFFD."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        self._vocabulary = vocabulary
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._previous: int | None = None

    def push(self, token_id: int) -> str:
        """The text that is now certain; empty while a character is unfinished."""
        backend = self._vocabulary.backend
        token = backend.id_to_token(token_id)
        if token is None or token_id in self._vocabulary.control_ids:
            return ""
        if self._vocabulary.kind is VocabularyKind.BYTE_LEVEL:
            return self._utf8.decode(_token_bytes(token))
        previous, self._previous = self._previous, token_id
        if self._vocabulary.kind is VocabularyKind.BYTE_FALLBACK and (
            byte := BYTE_TOKEN.fullmatch(token)
        ):
            return self._utf8.decode(bytes.fromhex(byte[1]))
        if previous is None:
            return backend.decode([token_id])
        unfinished = self.flush()
        return unfinished + backend.decode([previous, token_id])[len(backend.decode([previous])) :]

    def flush(self) -> str:
        """What is left at the end: U+FFFD if the last character never finished, else nothing."""
        return self._utf8.decode(b"", final=True)


def _kind(backend: tokenizers.Tokenizer) -> VocabularyKind:
    decoder = backend.decoder
    if decoder is None:
        return VocabularyKind.TEXT
    names = _decoder_names(json.loads(decoder.__getstate__()))
    if names == ["ByteLevel"]:
        return VocabularyKind.BYTE_LEVEL
    return VocabularyKind.BYTE_FALLBACK if "ByteFallback" in names else VocabularyKind.TEXT


def _decoder_names(state: dict[str, Any]) -> list[str]:
    if state["type"] == "Sequence":
        return [name for part in state["decoders"] for name in _decoder_names(part)]
    return [state["type"]]


def _token_bytes(token: str) -> bytes:
    """A byte-level token's bytes; a token that is not in that alphabet stands for itself."""
    alphabet = _byte_alphabet()
    try:
        return bytes(alphabet[character] for character in token)
    except KeyError:
        return token.encode()


@cache
def _byte_alphabet() -> dict[str, int]:
    """The character that stands for each byte: printable ones themselves, the rest from U+0100.

    Radford et al. 2019 (GPT-2).
    """
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable}
    alphabet |= {chr(0x100 + place): byte for place, byte in enumerate(others)}
    return alphabet
