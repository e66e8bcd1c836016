"""Secrets: in the system's keyring, or in a file where the user chose the folder."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from types import ModuleType
from typing import TypeVar

from superbloom.domain.errors import SecretsUnavailable, StorageFailed
from superbloom.storage.atomic_file import set_aside, storage_error, write_file
from superbloom.storage.paths import DataFolder

R = TypeVar("R")

SERVICE = "superbloom"
KEYRING_SECONDS = 60.0
"""A keyring may ask the user to unlock it; longer than this it does not hold us up."""


class Secrets:
    """Short texts by name. `in_file` keeps them in the data folder (0600) and asks no keyring.

    A file that is there already, by an earlier consent, goes on being used. Every method raises
    SecretsUnavailable without a usable keyring, StorageFailed or DiskFull where the file cannot be
    used.
    """

    def __init__(self, data: DataFolder, *, in_file: bool) -> None:
        self._store: _FileSecrets | _KeyringSecrets
        self._file = _FileSecrets(data)
        in_file = in_file or data.secrets_file.exists()
        self._store = self._file if in_file else _KeyringSecrets()

    def get(self, name: str) -> str | None:
        """The secret, or None if there is none of this name."""
        return self._store.get(name)

    def set(self, name: str, secret: str, *, file_will_do: bool = False) -> None:
        """Keep a secret, in place of an older one.

        `file_will_do` is the user's consent to keep them in the file where no keyring is.
        """
        try:
            self._store.set(name, secret)
        except SecretsUnavailable:
            if not file_will_do:
                raise
            self._file.set(name, secret)
            self._store = self._file

    def delete(self, name: str) -> None:
        """Forget a secret; no matter whether there is one."""
        self._store.delete(name)


class _FileSecrets:
    def __init__(self, data: DataFolder) -> None:
        self._path = data.secrets_file

    def get(self, name: str) -> str | None:
        return self._load().get(name)

    def set(self, name: str, secret: str) -> None:
        self._save(self._load() | {name: secret})

    def delete(self, name: str) -> None:
        secrets = self._load()
        if name in secrets:
            del secrets[name]
            self._save(secrets)

    def _load(self) -> dict[str, str]:
        try:
            content = self._path.read_bytes()
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise storage_error(self._path, error) from error
        try:
            secrets = json.loads(content)
        except (ValueError, RecursionError):
            secrets = None
        if not isinstance(secrets, dict) or not all(isinstance(s, str) for s in secrets.values()):
            kept = set_aside(self._path)
            raise StorageFailed(
                f"The file of secrets is damaged; it is kept as {kept.name}.",
                "Try again; private swarms must be joined anew.",
            )
        return secrets

    def _save(self, secrets: dict[str, str]) -> None:
        write_file(self._path, json.dumps(secrets, indent=2).encode())


class _KeyringSecrets:
    def get(self, name: str) -> str | None:
        def read(keyring: ModuleType) -> str | None:
            secret: str | None = keyring.get_password(SERVICE, name)
            return secret

        return _with_keyring(read)

    def set(self, name: str, secret: str) -> None:
        _with_keyring(lambda keyring: keyring.set_password(SERVICE, name, secret))

    def delete(self, name: str) -> None:
        def delete(keyring: ModuleType) -> None:
            if keyring.get_password(SERVICE, name) is not None:
                keyring.delete_password(SERVICE, name)

        _with_keyring(delete)


def _with_keyring(work: Callable[[ModuleType], R]) -> R:
    """Do `work` in a thread that may be left behind: a keyring can wait for its user for ever."""
    results: list[R] = []
    failures: list[Exception] = []

    def run() -> None:
        try:
            import keyring  # noqa: PLC0415 (slow, and not wanted where secrets lie in a file)

            results.append(work(keyring))
        except Exception as error:  # noqa: BLE001 (keyring backends raise what they like)
            failures.append(error)

    thread = threading.Thread(target=run, name="keyring", daemon=True)
    thread.start()
    thread.join(KEYRING_SECONDS)
    if results:
        return results[0]
    if failures:
        raise SecretsUnavailable("There is no keyring to keep secrets in.") from failures[0]
    raise SecretsUnavailable("The keyring does not answer.")
