"""Conversations in their database."""

from __future__ import annotations

import itertools
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import superbloom
from superbloom.domain.conversation import Conversation, Message, Role
from superbloom.domain.errors import DiskFull, InputRejected, StorageFailed
from superbloom.domain.sampling import EndReason
from superbloom.storage import database
from superbloom.storage.conversations import UPGRADES, ConversationStore

numbers = itertools.count()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "conversations.sqlite3"


@pytest.fixture
def store(path: Path) -> Iterator[ConversationStore]:
    made = ConversationStore(path)
    yield made
    made.close()


def head(id: str = "c", at: float = 1.0) -> Conversation:
    return Conversation(id=id, title="Title ä", model="m", created_at=at, updated_at=at)


def message(
    parent: Message | None, text: str = "text", role: Role = Role.USER, conversation: str = "c"
) -> Message:
    number = next(numbers)
    return Message(
        id=f"m{number}",
        conversation=conversation,
        parent=parent.id if parent else None,
        role=role,
        text=text,
        created_at=float(number),
    )


def test_what_is_stored_is_there_after_opening_again(path: Path, store: ConversationStore) -> None:
    store.create(head())
    question = message(None, "Why?\x00 🌸")
    answer = replace(
        message(question, "So.", Role.ASSISTANT),
        end=EndReason.LENGTH, tokens=5, tokens_per_second=1.5, first_token_seconds=0.25,
    )  # fmt: skip
    store.add_message(question)
    store.add_message(answer)
    store.close()
    again = ConversationStore(path)
    assert again.problem == ""
    found, shown = again.transcript("c")
    assert shown == (question, answer)
    assert found == replace(head(), updated_at=answer.created_at)
    assert again.conversations() == (found,)
    again.close()


def test_the_shown_path_follows_the_newest_branch(store: ConversationStore) -> None:
    store.create(head())
    root = message(None)
    first, second = message(root, "first"), message(root, "second")
    below = message(second, "below")
    for one in (root, first, second, below):
        store.add_message(one)
    assert store.transcript("c")[1] == (root, second, below)
    other = message(first, "other")
    store.add_message(other)
    assert store.transcript("c")[1] == (root, first, other)


def test_a_growing_answer(store: ConversationStore) -> None:
    store.create(head())
    answer = message(None, "", Role.ASSISTANT)
    store.add_message(answer)
    grown = replace(answer, text="Once", tokens=1)
    store.update_message(grown)
    assert store.transcript("c")[1] == (grown,)


def test_newest_first(store: ConversationStore) -> None:
    for number, id in enumerate("abc"):
        store.create(head(id, at=float(number)))
    assert [one.id for one in store.conversations()] == ["c", "b", "a"]
    store.add_message(replace(message(None, conversation="a"), created_at=100.0))
    assert [one.id for one in store.conversations()] == ["a", "c", "b"]


def test_rename(store: ConversationStore) -> None:
    store.create(head())
    store.rename("c", "Other")
    assert store.conversations()[0].title == "Other"


def test_a_long_conversation_is_deleted_with_all_its_messages(
    path: Path, store: ConversationStore
) -> None:
    store.create(head())
    store.create(head("kept"))
    last = None
    for _ in range(1500):  # deeper than SQLite follows a cascade
        last = message(last)
        store.add_message(last)
    kept = message(None, conversation="kept")
    store.add_message(kept)
    assert len(store.transcript("c")[1]) == 1500
    store.delete("c")
    assert [one.id for one in store.conversations()] == ["kept"]
    with sqlite3.connect(path) as connection:
        assert connection.execute("SELECT id FROM messages").fetchall() == [(kept.id,)]
    connection.close()


def test_what_is_not_there_is_said(store: ConversationStore) -> None:
    store.create(head())
    store.create(head("d"))
    elsewhere = message(None, conversation="d")
    store.add_message(elsewhere)
    wrong = [
        lambda: store.transcript("x"),
        lambda: store.rename("x", "t"),
        lambda: store.delete("x"),
        lambda: store.add_message(message(None, conversation="x")),
        lambda: store.add_message(message(elsewhere)),
        lambda: store.add_message(replace(message(None), parent="nobody")),
        lambda: store.update_message(message(None)),
        lambda: store.create(head()),
        lambda: store.add_message(elsewhere),
    ]
    for call in wrong:
        with pytest.raises(InputRejected):
            call()
    assert store.transcript("c")[1] == ()
    assert store.transcript("d")[1] == (elsewhere,)


CRASH = """
import os, signal, sys
from dataclasses import replace
from pathlib import Path
from superbloom.domain.conversation import Conversation, Message, Role
from superbloom.storage.conversations import ConversationStore
store = ConversationStore(Path(sys.argv[1]))
store.create(Conversation(id="c", title="t", model="m", created_at=1.0, updated_at=1.0))
answer = Message(id="a", conversation="c", parent=None, role=Role.ASSISTANT, text="",
                 created_at=1.0)
store.add_message(answer)
store.update_message(replace(answer, text="Half an ans"))
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="no SIGKILL")
def test_an_answer_cut_short_by_a_crash_is_found_and_ended(path: Path) -> None:
    surroundings = {**os.environ, "PYTHONPATH": str(Path(superbloom.__file__).parent.parent)}
    crashed = subprocess.run(
        [sys.executable, "-c", CRASH, str(path)], env=surroundings, check=False
    )
    assert crashed.returncode == -signal.SIGKILL
    store = ConversationStore(path)
    (answer,) = store.transcript("c")[1]
    assert (answer.text, answer.end) == ("Half an ans", EndReason.FAILED)
    store.close()


def test_questions_are_not_ended_by_opening(path: Path, store: ConversationStore) -> None:
    store.create(head())
    store.add_message(message(None))
    store.close()
    again = ConversationStore(path)
    assert again.transcript("c")[1][0].end is None
    again.close()


def damage_all(content: bytearray) -> None:
    content[:] = b"not a database, whatever its name says" * 20


def damage_middle(content: bytearray) -> None:
    content[4096 : 4096 * 3] = b"\xa5" * 8192


def cut_short(content: bytearray) -> None:
    del content[len(content) // 2 :]


@pytest.mark.parametrize("damage", [damage_all, damage_middle, cut_short])
def test_a_damaged_database_is_kept_aside_and_said(path: Path, damage) -> None:
    store = ConversationStore(path)
    store.create(head())
    for _ in range(200):
        store.add_message(message(None, "text " * 50))
    store.close()
    content = bytearray(path.read_bytes())
    damage(content)
    path.write_bytes(content)
    again = ConversationStore(path)
    kept = next(path.parent.glob("conversations.damaged-*.sqlite3"))
    assert kept.read_bytes()[:64] == bytes(content[:64])
    assert kept.name in again.problem
    assert again.conversations() == ()
    again.create(head())
    again.close()
    once_more = ConversationStore(path)
    assert once_more.problem == ""
    assert len(once_more.conversations()) == 1
    once_more.close()


def test_an_upgrade_keeps_a_copy_of_what_was(path: Path) -> None:
    first = ("CREATE TABLE t (a)",)
    old, _ = database.open_database(path, first)
    old.execute("INSERT INTO t VALUES (1)")
    old.close()
    new, problem = database.open_database(path, (*first, "ALTER TABLE t ADD COLUMN b DEFAULT 2"))
    assert problem == ""
    assert new.execute("SELECT * FROM t").fetchall() == [(1, 2)]
    new.close()
    copy = sqlite3.connect(path.with_name(f"{path.name}.v1"))
    assert copy.execute("SELECT * FROM t").fetchall() == [(1,)]
    assert copy.execute("PRAGMA user_version").fetchone() == (1,)
    copy.close()


def test_an_upgrade_that_fails_changes_nothing(path: Path) -> None:
    first = ("CREATE TABLE t (a)",)
    database.open_database(path, first)[0].close()
    with pytest.raises(StorageFailed):
        database.open_database(path, (*first, "ALTER TABLE t ADD COLUMN b; SELECT nonsense"))
    again, _ = database.open_database(path, first)
    assert again.execute("SELECT * FROM t").description[0][0] == "a"
    assert len(again.execute("SELECT * FROM t").description) == 1
    again.close()


def test_a_database_of_a_newer_program_is_left_alone(path: Path) -> None:
    newer = database.open_database(path, (*UPGRADES, "CREATE TABLE t (a)"))[0]
    newer.close()
    with pytest.raises(InputRejected, match="newer"):
        ConversationStore(path)
    assert list(path.parent.glob("*damaged*")) == []


def test_a_full_disk_is_said_and_loses_nothing(path: Path, store: ConversationStore) -> None:
    store.create(head())
    small = message(None, "small")
    store.add_message(small)
    (pages,) = store._database.execute("PRAGMA page_count").fetchone()
    store._database.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(DiskFull):
        store.add_message(message(small, "x" * 1_000_000))
    assert store.transcript("c")[1] == (small,)
    store.rename("c", "still works")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed):
        ConversationStore(tmp_path / "none" / "conversations.sqlite3")


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no mode bits")
def test_only_the_user_may_read_it(path: Path, store: ConversationStore) -> None:
    assert path.stat().st_mode & 0o077 == 0


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(parents=st.lists(st.integers(0), max_size=25))
def test_any_tree_shows_the_path_to_its_newest_message(tmp_path: Path, parents: list[int]) -> None:
    store = ConversationStore(tmp_path / f"{next(numbers)}.sqlite3")
    store.create(head())
    tree: list[Message] = []
    for choice in parents:
        at = choice % (len(tree) + 1)
        tree.append(message(tree[at] if at < len(tree) else None, text=str(choice)))
        store.add_message(tree[-1])
    by_id = {one.id: one for one in tree}
    expected: list[Message] = []
    step = tree[-1] if tree else None
    while step is not None:
        expected.insert(0, step)
        step = by_id.get(step.parent or "")
    assert store.transcript("c")[1] == tuple(expected)
    store.close()
