import json

import pytest

from superbloom.domain.catalogue import (
    STARTER,
    read_catalogue,
    source_from_plain,
    source_to_plain,
    source_words,
    unknown_model,
)
from superbloom.domain.model_card import FolderSource, GgufSource, HubSource, WheelSource
from superbloom.domain.record import NotARecord
from superbloom.storage.paths import resource


@pytest.fixture(scope="module")
def catalogue():
    return read_catalogue(resource("catalogue", "models.json").read_text(encoding="utf-8"))


def test_the_shipped_catalogue_knows_the_starter_from_two_sources(catalogue):
    card = catalogue.find(STARTER)
    assert card is not None
    assert [type(source) for source in card.sources] == [WheelSource, HubSource]
    assert card.licence == "Apache-2.0"


def test_the_shipped_catalogue_holds_the_models_people_pool_machines_for(catalogue):
    ids = {card.id for card in catalogue}
    assert ids >= {
        "bloom-176b",
        "llama-3.3-70b-instruct",
        "llama-3.1-405b-instruct",
        "mixtral-8x22b-instruct",
        "qwen3-235b-a22b",
        "gpt-oss-120b",
        "falcon-180b-chat",
    }
    assert all(card.sources and card.name and card.licence for card in catalogue)


@pytest.mark.parametrize(
    "source",
    [
        HubSource("a/b", "c0ffee"),
        WheelSource("p", "1.0", "00ff", "p/x.gguf", 12),
        GgufSource("/tmp/x.gguf"),
        FolderSource("/tmp/x"),
    ],
)
def test_a_source_survives_being_written(source):
    assert source_from_plain(json.loads(json.dumps(source_to_plain(source)))) == source
    assert source_words(source)


@pytest.mark.parametrize(
    "plain", [{"kind": "pickle"}, {"repository": "a/b"}, "hub", {"kind": "hub"}]
)
def test_a_source_of_another_kind_is_refused(plain):
    with pytest.raises(NotARecord):
        source_from_plain(plain)


def test_two_entries_of_one_id_are_refused():
    entry = {"id": "a", "name": "A", "licence": "MIT", "sources": [], "config": {}}
    with pytest.raises(NotARecord):
        read_catalogue(json.dumps({"models": [entry, entry]}))


def test_an_unknown_model_comes_with_what_may_be_meant(catalogue):
    known = [card.id for card in catalogue]
    assert "qwen3-8b" in unknown_model("Qwen3-8", known).next_step
    error = unknown_model("zzzzzzzz", known)
    assert "zzzzzzzz" in error.message
    assert "model list" in error.next_step
