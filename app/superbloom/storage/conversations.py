"""The conversations in SQLite: each a tree of messages, of which one path is shown."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from superbloom.domain.conversation import Conversation, Message, Role
from superbloom.domain.errors import InputRejected
from superbloom.domain.sampling import EndReason
from superbloom.storage.database import open_database, sqlite_errors

UPGRADES = (
    """
    CREATE TABLE conversations (
        id TEXT PRIMARY KEY,
        title TEXT NOT NULL,
        model TEXT NOT NULL,
        created_at REAL NOT NULL,
        updated_at REAL NOT NULL,
        shown TEXT
    ) STRICT;
    CREATE INDEX conversations_updated ON conversations (updated_at);
    CREATE TABLE messages (
        id TEXT PRIMARY KEY,
        conversation TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
        parent TEXT REFERENCES messages (id) DEFERRABLE INITIALLY DEFERRED,
        role TEXT NOT NULL,
        text TEXT NOT NULL,
        created_at REAL NOT NULL,
        end TEXT,
        tokens INTEGER NOT NULL,
        tokens_per_second REAL NOT NULL,
        first_token_seconds REAL NOT NULL
    ) STRICT;
    CREATE INDEX messages_conversation ON messages (conversation);
    CREATE INDEX messages_parent ON messages (parent)
    """,
)
"""`shown` is the last message of the shown path, the one written last. A message's parent has no
ON DELETE CASCADE: SQLite stops such chains at a depth of 1000."""

_HEAD = "id, title, model, created_at, updated_at"
_MESSAGE = (
    "id, conversation, parent, role, text, created_at, end, tokens, tokens_per_second, "
    "first_token_seconds"
)


class ConversationStore:
    """Used from one thread. Every method raises DiskFull or StorageFailed when the disk does.

    Opening ends, as FAILED, the answers that a crash left unfinished; so one store at a time.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._database, self.problem = open_database(path, UPGRADES)
        """`problem`: a sentence for the user if the old file was damaged, else empty."""
        with self._change() as database:
            database.execute(
                "UPDATE messages SET end = ? WHERE end IS NULL AND role = ?",
                (EndReason.FAILED, Role.ASSISTANT),
            )

    def conversations(self) -> tuple[Conversation, ...]:
        """Every conversation, the one changed last first."""
        with sqlite_errors(self._path):
            rows = self._database.execute(
                f"SELECT {_HEAD} FROM conversations ORDER BY updated_at DESC, rowid DESC"
            )
            return tuple(_conversation(row) for row in rows)

    def transcript(self, conversation: str) -> tuple[Conversation, tuple[Message, ...]]:
        """The head line and the shown path, oldest first. Raises InputRejected if unknown."""
        with sqlite_errors(self._path):
            head = self._head(conversation)
            rows = self._database.execute(
                f"""
                WITH RECURSIVE path (step, at) AS (
                    SELECT 0, shown FROM conversations WHERE id = ?
                    UNION ALL
                    SELECT step + 1, parent FROM path JOIN messages ON messages.id = at
                )
                SELECT {_MESSAGE} FROM path JOIN messages ON messages.id = at ORDER BY step DESC
                """,
                (conversation,),
            )
            return head, tuple(_message(row) for row in rows)

    def create(self, conversation: Conversation) -> None:
        """Begin a conversation without messages. Raises InputRejected if the id is taken."""
        with self._change() as database:
            values = (
                conversation.id,
                conversation.title,
                conversation.model,
                conversation.created_at,
                conversation.updated_at,
            )
            try:
                database.execute(
                    f"INSERT INTO conversations ({_HEAD}) VALUES (?, ?, ?, ?, ?)", values
                )
            except sqlite3.IntegrityError:
                raise InputRejected("There is a conversation of this id already.") from None

    def rename(self, conversation: str, title: str) -> None:
        """Raises InputRejected if unknown."""
        with self._change() as database:
            done = database.execute(
                "UPDATE conversations SET title = ? WHERE id = ?", (title, conversation)
            )
            _must_exist(done)

    def delete(self, conversation: str) -> None:
        """Delete a conversation and all its messages. Raises InputRejected if unknown."""
        with self._change() as database:
            done = database.execute("DELETE FROM conversations WHERE id = ?", (conversation,))
            _must_exist(done)

    def add_message(self, message: Message) -> None:
        """Add a message below its parent; the shown path leads to it from now on.

        Raises InputRejected if there is no such conversation, or the parent is not one of it.
        """
        with self._change() as database:
            self._head(message.conversation)
            if message.parent is not None:
                found = database.execute(
                    "SELECT 1 FROM messages WHERE id = ? AND conversation = ?",
                    (message.parent, message.conversation),
                )
                if found.fetchone() is None:
                    raise InputRejected("The message to go on from is not in the conversation.")
            try:
                database.execute(
                    f"INSERT INTO messages ({_MESSAGE}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (
                        message.id,
                        message.conversation,
                        message.parent,
                        message.role,
                        message.text,
                        message.created_at,
                        message.end,
                        message.tokens,
                        message.tokens_per_second,
                        message.first_token_seconds,
                    ),
                )
            except sqlite3.IntegrityError:
                raise InputRejected("There is a message of this id already.") from None
            database.execute(
                "UPDATE conversations SET shown = ?, updated_at = max(updated_at, ?) WHERE id = ?",
                (message.id, message.created_at, message.conversation),
            )

    def update_message(self, message: Message) -> None:
        """Replace a message's text, end and figures. Raises InputRejected if unknown."""
        with self._change() as database:
            done = database.execute(
                "UPDATE messages SET text = ?, end = ?, tokens = ?, tokens_per_second = ?, "
                "first_token_seconds = ? WHERE id = ?",
                (
                    message.text,
                    message.end,
                    message.tokens,
                    message.tokens_per_second,
                    message.first_token_seconds,
                    message.id,
                ),
            )
            _must_exist(done)

    def close(self) -> None:
        """Close the database; nothing may be asked after."""
        with sqlite_errors(self._path):
            self._database.close()

    @contextmanager
    def _change(self) -> Iterator[sqlite3.Connection]:
        """One transaction: all of it or nothing."""
        with sqlite_errors(self._path):
            self._database.execute("BEGIN IMMEDIATE")
            try:
                yield self._database
                self._database.execute("COMMIT")
            except BaseException:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise

    def _head(self, conversation: str) -> Conversation:
        row = self._database.execute(
            f"SELECT {_HEAD} FROM conversations WHERE id = ?", (conversation,)
        ).fetchone()
        if row is None:
            raise _unknown()
        return _conversation(row)


def _must_exist(done: sqlite3.Cursor) -> None:
    if done.rowcount == 0:
        raise _unknown()


def _unknown() -> InputRejected:
    return InputRejected("There is no such conversation.", "It may have been deleted meanwhile.")


def _conversation(row: tuple[str, str, str, float, float]) -> Conversation:
    id, title, model, created_at, updated_at = row
    return Conversation(
        id=id, title=title, model=model, created_at=created_at, updated_at=updated_at
    )


def _message(
    row: tuple[str, str, str | None, str, str, float, str | None, int, float, float],
) -> Message:
    id, conversation, parent, role, text, created_at, end, tokens, speed, first = row
    return Message(
        id=id,
        conversation=conversation,
        parent=parent,
        role=Role(role),
        text=text,
        created_at=created_at,
        end=None if end is None else EndReason(end),
        tokens=tokens,
        tokens_per_second=speed,
        first_token_seconds=first,
    )
