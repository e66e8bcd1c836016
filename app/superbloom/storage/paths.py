"""Where everything of ours lies: one folder, given by the user or the system's usual place."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path

from superbloom.domain.errors import InputRejected


def default_data_dir() -> Path:
    """The folder that this system gives to a program's data."""
    from platformdirs import user_data_path  # noqa: PLC0415 (costs start-up time; rarely needed)

    return user_data_path("superbloom", appauthor=False)


def resource(*names: str) -> Path:
    """A file that comes with the program, such as `resource("catalogue", "models.json")`.

    In a source tree it lies in `resources/` beside `app/`, installed in `share/superbloom/` of the
    environment. Raises FileNotFoundError if the installation lacks it.
    """
    package = Path(__file__).resolve().parents[1]
    roots = (
        package.parents[1] / "resources",
        package / "resources",  # a frozen program keeps everything beside its code
        Path(sys.prefix) / "share" / "superbloom",
    )
    for root in roots:
        found = root.joinpath(*names)
        if found.exists():
            return found
    raise FileNotFoundError(f"{'/'.join(names)} is in none of {', '.join(map(str, roots))}")


@dataclass(frozen=True, slots=True)
class DataFolder:
    """The data folder by the names of what lies in it. Nothing of ours lies elsewhere."""

    root: Path

    @classmethod
    def at(cls, chosen: str | Path | None) -> DataFolder:
        """The folder given with --data-dir, for None the default one; absolute.

        Raises InputRejected for an empty name, which is none, and for the home of nobody.
        """
        if chosen is None:
            return cls(default_data_dir())
        if not str(chosen).strip():
            raise InputRejected("The name of the data folder is empty.")
        try:
            return cls(Path(chosen).expanduser().absolute())
        except RuntimeError as error:
            raise InputRejected(f"There is no folder {str(chosen)!r}.") from error

    @property
    def is_default(self) -> bool:
        """True for the system's usual place; only there do secrets go to the keyring."""
        return self.root == default_data_dir()

    @property
    def settings_file(self) -> Path:
        return self.root / "settings.json"

    @property
    def database(self) -> Path:
        return self.root / "conversations.sqlite3"

    @property
    def models(self) -> Path:
        return self.root / "models"

    @property
    def identities(self) -> Path:
        return self.root / "identities"

    def identity(self, name: str) -> Path:
        """The key file of one peer of ours (`node`, `server`)."""
        return self.identities / f"{name}.key"

    @property
    def cache(self) -> Path:
        """What can be computed or fetched again."""
        return self.root / "cache"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @property
    def node_log(self) -> Path:
        return self.logs / "node.log"

    @property
    def server_log(self) -> Path:
        return self.logs / "server.log"

    @property
    def window_log(self) -> Path:
        return self.logs / "window.log"

    @property
    def console_log(self) -> Path:
        """What a node that another program started writes to its terminal."""
        return self.logs / "node-console.log"

    @property
    def control_file(self) -> Path:
        """How to reach the running node: see `control.address`."""
        return self.root / "control.json"

    @property
    def lock_file(self) -> Path:
        return self.root / "node.lock"

    @property
    def window_lock_file(self) -> Path:
        return self.root / "window.lock"

    @property
    def secrets_file(self) -> Path:
        return self.root / "secrets.json"

    def ensure(self) -> None:
        """Make the folders that are not there, for this user alone (0700).

        Raises InputRejected if the system does not let us.
        """
        for folder in (self.root, self.models, self.identities, self.cache, self.logs):
            try:
                folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            except OSError as error:
                raise InputRejected(
                    f"The data folder {self.root} cannot be used: {error.strerror or error}.",
                    "Choose another folder with --data-dir.",
                ) from error
