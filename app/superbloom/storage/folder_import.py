"""A model folder that the user has becomes one of ours: linked where possible, else copied."""

from __future__ import annotations

import logging
import os
import shutil
from pathlib import Path

from superbloom.domain.errors import InputRejected, ModelDamaged, ModelUnsupported
from superbloom.storage.atomic_file import storage_error
from superbloom.storage.fetching import FetchWatch, plain_name, require_room
from superbloom.storage.model_files import (
    CONFIG_FILE,
    INDEX_FILE,
    SINGLE_FILE,
    is_small_file,
    read_weight_map,
)

logger = logging.getLogger(__name__)

_CHUNK = 4 * 2**20
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def import_folder(source: Path, target: Path, watch: FetchWatch) -> None:
    """Bring configuration, tokenizer and safetensors of `source` into the folder `target`.

    The same file on the same disk is only linked, so it takes no room. Raises InputRejected,
    ModelUnsupported, ModelDamaged, DiskFull, StorageFailed, FetchCancelled.
    """
    names = _files_of(source)
    sizes = {name: (source / name).stat().st_size for name in names}
    if source.stat().st_dev != target.stat().st_dev:
        require_room(target, sum(sizes.values()))
    total, done = sum(sizes.values()), 0
    for name in names:
        watch.check()
        _bring(source / name, target / name, watch)
        done += sizes[name]
        watch.tell(done, total, "Importing the folder")


def _files_of(source: Path) -> list[str]:
    """What of the folder is a model's: its small files and every shard that its index names."""
    if not (source / CONFIG_FILE).is_file():
        raise InputRejected(
            f"{source} holds no model: it has no {CONFIG_FILE}.",
            "Give a folder with config.json, tokenizer and safetensors, or a GGUF file.",
        )
    small = [item.name for item in sorted(source.iterdir()) if is_small_file(item.name)]
    if (source / INDEX_FILE).is_file():
        shards = sorted(set(read_weight_map(source).values()))
    elif (source / SINGLE_FILE).is_file():
        shards = [SINGLE_FILE]
    elif any(next(source.glob(pattern), None) for pattern in _PICKLES):
        raise ModelUnsupported(
            f"{source} has its weights only as pickles, which can run any program when they are "
            "read, so they are never used.",
            "Convert them to safetensors first.",
        )
    else:
        raise ModelUnsupported(f"{source} has no weights as safetensors.", "Give another folder.")
    missing = [name for name in shards if not (source / name).is_file()]
    if missing:
        raise ModelDamaged(f"{source} lacks {missing[0]}.", "Complete the folder and try again.")
    return [plain_name(name) for name in (*small, *shards)]


def _bring(source: Path, target: Path, watch: FetchWatch) -> None:
    try:
        os.link(source.resolve(), target)
        return
    except OSError as error:
        logger.debug("%s is copied: %s", source, error)
    try:
        with source.open("rb") as given, target.open("wb") as file:
            while piece := given.read(_CHUNK):
                watch.check()
                file.write(piece)
        shutil.copystat(source, target)
    except OSError as error:
        raise storage_error(target, error) from error
