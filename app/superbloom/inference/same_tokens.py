"""Whether two models' tokenizers give the same ids, by what is in them rather than their names."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import tokenizers

from superbloom.inference.tokenizer import ChatTokenizer


@dataclass(frozen=True, slots=True)
class TokenIds:
    """Every token's id; `added` are those beyond the vocabulary that words are made of.

    `rules` stands for how words are made of it: equal for equal kinds and merges.
    """

    ids: Mapping[str, int]
    added: frozenset[str]
    rules: str

    @classmethod
    def read(cls, folder: Path) -> TokenIds:
        """Of a model folder. Raises ModelNotHere, ModelDamaged, ModelUnsupported."""
        return cls.of(ChatTokenizer.load(folder).backend)

    @classmethod
    def of(cls, backend: tokenizers.Tokenizer) -> TokenIds:
        """Of the library's own tokenizer."""
        model = json.loads(backend.to_str())["model"]
        added = backend.get_added_tokens_decoder().values()
        return cls(
            ids=backend.get_vocab(with_added_tokens=True),
            added=frozenset(token.content for token in added),
            rules=_rules_of(model),
        )

    def agree_with(self, other: TokenIds) -> bool:
        """True if every text has the same ids in both.

        One may have more added tokens than the other: control tokens of another kind of chat.
        Vocabularies that end in padding have no tokens there.
        """
        if self.rules != other.rules:
            return False
        mine, others = self.ids.items(), other.ids.items()
        differing = {token for token, _ in mine ^ others}
        if any(token in self.ids and token in other.ids for token in differing):
            return False
        if not differing <= self.added | other.added:
            return False
        only_mine = {self.ids[token] for token in differing if token in self.ids}
        return only_mine.isdisjoint(other.ids[token] for token in differing if token in other.ids)


def _rules_of(model: Mapping[str, object]) -> str:
    """A digest of how the vocabulary is used; merges are written as texts or as pairs."""
    merges = model.get("merges")
    pairs = [
        merge.split(" ") if isinstance(merge, str) else merge
        for merge in (merges if isinstance(merges, list) else [])
    ]
    content = [model.get("type"), pairs]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
