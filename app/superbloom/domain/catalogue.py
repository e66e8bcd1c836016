"""The catalogue: the models the program knows by name, and how an entry is written."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import cast

from superbloom.domain.errors import UnknownModel
from superbloom.domain.model_card import (
    FolderSource,
    GgufSource,
    HubSource,
    ModelCard,
    ModelSource,
    WheelSource,
)
from superbloom.domain.record import NotARecord, from_plain, to_plain

STARTER = "smollm2-135m-instruct"
"""The model that a fresh installation fetches."""

_SOURCES: Mapping[str, type[ModelSource]] = {
    "hub": HubSource,
    "wheel": WheelSource,
    "gguf": GgufSource,
    "folder": FolderSource,
}


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Model cards in the order in which they are shown."""

    cards: tuple[ModelCard, ...]

    def __iter__(self) -> Iterator[ModelCard]:
        return iter(self.cards)

    def find(self, model: str) -> ModelCard | None:
        """The card with this id, or None."""
        return next((card for card in self.cards if card.id == model), None)


def unknown_model(model: str, known: Iterable[str]) -> UnknownModel:
    """The error for an id that is neither in the catalogue nor on disk, with what may be meant."""
    close = get_close_matches(model.lower(), list(known), n=3, cutoff=0.5)
    if not close:
        return UnknownModel(f"There is no model called {model[:80]!r}.")
    return UnknownModel(
        f"There is no model called {model[:80]!r}.",
        f"Did you mean {' or '.join(close)}? `superbloom model list` shows all.",
    )


def read_catalogue(text: str) -> Catalogue:
    """The catalogue from its JSON text. Raises NotARecord: the file comes with the program."""
    models = json.loads(text)["models"]
    cards = tuple(_read_card(entry) for entry in models)
    if len({card.id for card in cards}) != len(cards):
        raise NotARecord("two models of the catalogue have the same id")
    return Catalogue(cards)


def source_to_plain(source: ModelSource) -> dict[str, object]:
    """A source as plain JSON values, with its kind."""
    kind = next(kind for kind, type_ in _SOURCES.items() if isinstance(source, type_))
    return {"kind": kind, **cast("dict[str, object]", to_plain(source))}


def source_from_plain(plain: object) -> ModelSource:
    """The reverse of `source_to_plain`. Raises NotARecord."""
    if not isinstance(plain, dict) or plain.get("kind") not in _SOURCES:
        raise NotARecord(f"a source is one of {', '.join(_SOURCES)}")
    kind = _SOURCES[plain["kind"]]
    return from_plain(kind, {key: value for key, value in plain.items() if key != "kind"})


def source_words(source: ModelSource) -> str:
    """Where a model comes from, for the user."""
    match source:
        case HubSource():
            return f"huggingface.co/{source.repository}"
        case WheelSource():
            return f"{source.package} {source.version} on the Python package index"
        case GgufSource() | FolderSource():
            return source.path


def _read_card(entry: dict[str, object]) -> ModelCard:
    sources = cast("list[object]", entry["sources"])
    return ModelCard(
        id=str(entry["id"]),
        name=str(entry["name"]),
        licence=str(entry["licence"]),
        sources=tuple(source_from_plain(source) for source in sources),
        config=cast("dict[str, object]", entry["config"]),
        note=str(entry.get("note", "")),
        chat=bool(entry.get("chat", True)),
    )
