"""Secrets in a file and in a keyring."""

from __future__ import annotations

import stat
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import keyring
import keyring.backend
import keyring.backends.fail
import pytest

from superbloom.domain.errors import SecretsUnavailable, StorageFailed
from superbloom.storage import secrets as secrets_module
from superbloom.storage.paths import DataFolder
from superbloom.storage.secrets import Secrets


class MemoryKeyring(keyring.backend.KeyringBackend):
    priority = 1

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], str] = {}
        self.locked: threading.Event | None = None

    def get_password(self, service: str, username: str) -> str | None:
        if self.locked is not None:
            self.locked.wait(30)
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.kept[service, username]


@pytest.fixture
def backend() -> Iterator[MemoryKeyring]:
    before = keyring.get_keyring()
    made = MemoryKeyring()
    keyring.set_keyring(made)
    yield made
    keyring.set_keyring(before)


@pytest.fixture(params=["file", "keyring"])
def secrets(request: pytest.FixtureRequest, tmp_path: Path, backend: MemoryKeyring) -> Secrets:
    return Secrets(DataFolder(tmp_path), in_file=request.param == "file")


def test_kept_replaced_and_forgotten(secrets: Secrets) -> None:
    assert secrets.get("a") is None
    secrets.set("a", "ä")
    secrets.set("b", "2")
    secrets.set("a", "3")
    assert (secrets.get("a"), secrets.get("b")) == ("3", "2")
    secrets.delete("a")
    secrets.delete("a")
    assert (secrets.get("a"), secrets.get("b")) == (None, "2")


def test_the_file_is_for_the_user_alone_and_asks_no_keyring(
    tmp_path: Path, backend: MemoryKeyring
) -> None:
    data = DataFolder(tmp_path)
    Secrets(data, in_file=True).set("a", "1")
    assert backend.kept == {}
    assert Secrets(data, in_file=True).get("a") == "1"
    assert sys.platform == "win32" or stat.S_IMODE(data.secrets_file.stat().st_mode) == 0o600


def test_the_keyring_leaves_no_file(tmp_path: Path, backend: MemoryKeyring) -> None:
    Secrets(DataFolder(tmp_path), in_file=False).set("a", "1")
    assert list(tmp_path.iterdir()) == []
    assert backend.kept == {("superbloom", "a"): "1"}


def test_without_a_keyring_nothing_is_kept_in_a_file_unasked(tmp_path: Path) -> None:
    before = keyring.get_keyring()
    keyring.set_keyring(keyring.backends.fail.Keyring())
    try:
        secrets = Secrets(DataFolder(tmp_path), in_file=False)
        with pytest.raises(SecretsUnavailable) as caught:
            secrets.set("a", "1")
    finally:
        keyring.set_keyring(before)
    assert "--keep-in-file" in caught.value.next_step
    assert list(tmp_path.iterdir()) == []


def test_without_a_keyring_a_consent_to_the_file_lasts(tmp_path: Path) -> None:
    before = keyring.get_keyring()
    keyring.set_keyring(keyring.backends.fail.Keyring())
    try:
        data = DataFolder(tmp_path)
        secrets = Secrets(data, in_file=False)
        secrets.set("a", "1", file_will_do=True)
        secrets.set("b", "2")
        later = Secrets(data, in_file=False)
        assert (later.get("a"), later.get("b")) == ("1", "2")
    finally:
        keyring.set_keyring(before)


def test_with_a_keyring_no_consent_makes_a_file(tmp_path: Path, backend: MemoryKeyring) -> None:
    Secrets(DataFolder(tmp_path), in_file=False).set("a", "1", file_will_do=True)
    assert list(tmp_path.iterdir()) == []
    assert backend.kept == {("superbloom", "a"): "1"}


def test_a_keyring_that_waits_for_ever(
    tmp_path: Path, backend: MemoryKeyring, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secrets_module, "KEYRING_SECONDS", 0.05)
    backend.locked = threading.Event()
    with pytest.raises(SecretsUnavailable, match="answer"):
        Secrets(DataFolder(tmp_path), in_file=False).get("a")
    backend.locked.set()


@pytest.mark.parametrize("content", [b"", b"[]", b'{"a": 1}', b"\xff"])
def test_a_damaged_file_is_kept_aside(tmp_path: Path, content: bytes) -> None:
    data = DataFolder(tmp_path)
    data.secrets_file.write_bytes(content)
    secrets = Secrets(data, in_file=True)
    with pytest.raises(StorageFailed, match="kept as"):
        secrets.get("a")
    assert [file.read_bytes() for file in tmp_path.iterdir()] == [content]
    assert secrets.get("a") is None
