"""Shapes of models, computed once in the background and kept on disk: torch takes long to start."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from superbloom import __version__
from superbloom.domain.errors import ModelUnsupported, SuperbloomError
from superbloom.domain.model_card import ModelShape
from superbloom.domain.record import NotARecord, from_plain, to_plain
from superbloom.storage.atomic_file import write_file

logger = logging.getLogger(__name__)

Config = Mapping[str, object]


class ModelShapes:
    """`compute` runs in a thread. What an older version of the program computed is not used.

    The shapes of the catalogue's models come with the program in `shipped`, computed in the same
    way; `file` keeps those of other models.
    """

    def __init__(self, file: Path, compute: Callable[[Config], ModelShape], shipped: Path) -> None:
        self._file = file
        self._shipped = shipped
        self._compute = compute
        self._known: dict[str, ModelShape] = {}
        self._refused: set[str] = set()
        self._lock = asyncio.Lock()

    def load(self) -> None:
        """Read what was computed before; a damaged file counts as none."""
        self._known = {**_read(self._shipped), **_read(self._file)}

    def known(self, config: Config) -> ModelShape | None:
        """The shape if it has been computed."""
        return self._known.get(_key(config))

    async def get(self, config: Config) -> ModelShape:
        """The shape, computed now if need be. Raises ModelUnsupported."""
        await self.compute([config])
        found = self.known(config)
        if found is None:
            raise ModelUnsupported("The model's configuration cannot be used by this version.")
        return found

    async def compute(self, configs: Iterable[Config]) -> bool:
        """Compute what is not known yet and keep it; True if something is new."""
        async with self._lock:
            missing = [config for config in configs if self._is_missing(config)]
            if not missing:
                return False
            await asyncio.to_thread(self._compute_all, missing)
            return True

    def _is_missing(self, config: Config) -> bool:
        key = _key(config)
        return key not in self._known and key not in self._refused

    def _compute_all(self, configs: list[Config]) -> None:
        for config in configs:
            try:
                self._known[_key(config)] = self._compute(config)
            except ModelUnsupported as error:
                logger.warning("a model of the kind %s: %s", config.get("model_type"), error)
                self._refused.add(_key(config))
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            write_file(self._file, encode_shapes(self._known))
        except (OSError, SuperbloomError) as error:
            logger.warning("the sizes of models are not kept: %s", error)


def shapes_of(
    configs: Iterable[Config], compute: Callable[[Config], ModelShape]
) -> dict[str, ModelShape]:
    """Each configuration's shape by its key. Raises ModelUnsupported."""
    return {_key(config): compute(config) for config in configs}


def encode_shapes(shapes: Mapping[str, ModelShape]) -> bytes:
    """A file of shapes."""
    plain = {key: to_plain(shape) for key, shape in shapes.items()}
    return json.dumps({"version": __version__, "shapes": plain}, indent=1).encode() + b"\n"


def _read(file: Path) -> dict[str, ModelShape]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["version"] != __version__:
            return {}
        return {key: from_plain(ModelShape, shape) for key, shape in content["shapes"].items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, NotARecord) as error:
        logger.warning("%s is of no use: %s", file, error)
        return {}


def _key(config: Config) -> str:
    return hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:24]
