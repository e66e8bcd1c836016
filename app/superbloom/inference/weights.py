"""A model folder's weights: which tensors belong to which blocks, and reading them one at a time.

Only safetensors are read (never pickles). A tensor's bytes are copied out of its shard, so that no
file stays mapped and memory holds nothing but what was asked for; a table of which only some rows
are looked up can be mapped instead.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import re
import struct
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

import torch
from torch import Tensor

from superbloom.domain.errors import ModelDamaged
from superbloom.domain.span import Span

CONFIG_FILE = "config.json"
INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILE = "model.safetensors"
MAX_HEADER_BYTES = 100 * 1024 * 1024

FINGERPRINT_BYTES = 64 * 1024
"""The fingerprint reads so much of each tensor of the client's part."""
FINGERPRINT_TENSORS = 64
"""It looks at no more tensors than these, the first by name; models have two to eight."""

DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}

_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, RecursionError, struct.error)

_BLOCK = re.compile(r"(?:^|\.)(\d+)\.")
_NOT_TEXT = re.compile(r"(?:^|\.)(?:vision|visual|audio|multi_modal|mm_|image)\w*\.")

# What the fingerprint takes from a configuration: shape and nothing that a writer may leave out.
_ESSENTIALS: tuple[tuple[str, ...], ...] = (
    ("model_type",),
    ("hidden_size", "n_embed", "n_embd"),
    ("num_hidden_layers", "n_layer"),
    ("num_attention_heads", "n_head"),
    ("vocab_size",),
)


def read_config(folder: Path) -> dict[str, object]:
    """The content of the folder's config.json. Raises ModelDamaged."""
    return _read_json(folder / CONFIG_FILE)


def block_of(name: str) -> int | None:
    """The block a checkpoint's tensor belongs to; None for embeddings, final norm and head.

    Tensors of a model's eyes and ears belong to no block either.
    """
    found = _BLOCK.search(name)
    return int(found.group(1)) if found and is_text(name) else None


def is_text(name: str) -> bool:
    """False for the tensors of a model's eyes and ears."""
    return _NOT_TEXT.search(name) is None


def tensors_of_blocks(names: Iterable[str], blocks: Span) -> tuple[str, ...]:
    """The names among `names` that belong to `blocks`, in their order."""
    wanted = frozenset(blocks)
    return tuple(name for name in names if block_of(name) in wanted)


def tensors_of_ends(names: Iterable[str]) -> tuple[str, ...]:
    """The names among `names` that the client needs: what is of no block."""
    return tuple(name for name in names if is_text(name) and block_of(name) is None)


def shards_of_blocks(weight_map: Mapping[str, str], blocks: Span) -> tuple[str, ...]:
    """The shard files that hold `blocks`, by the index's map from tensor to file."""
    return _shards(weight_map, tensors_of_blocks(weight_map, blocks))


def shards_of_ends(weight_map: Mapping[str, str]) -> tuple[str, ...]:
    """The shard files that hold the client's part."""
    return _shards(weight_map, tensors_of_ends(weight_map))


def fingerprint(folder: Path) -> str:
    """16 hex digits that tell models of another shape or with other weights apart.

    They are the same for every folder of the model, however it is sharded and however much of it
    has been fetched: shape figures of the configuration, the names of its blocks' tensors, and the
    beginnings of embeddings, final norm and head as they are stored, which every server has as
    well. Models that differ in nothing but their blocks' weights look the same.

    Raises ModelDamaged.
    """
    config = read_config(folder)
    text = config.get("text_config")
    shape = cast(Mapping[str, object], text) if isinstance(text, dict) else config
    essentials = [
        next((shape[name] for name in names if name in shape), None) for names in _ESSENTIALS
    ]
    checkpoint = Checkpoint(folder)
    names = sorted(_bare(name) for name in checkpoint.names if block_of(name) is not None)
    parts = [essentials, names, _beginnings_of_ends(checkpoint)]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def _beginnings_of_ends(checkpoint: Checkpoint) -> list[str]:
    """Hashes of what the client's tensors begin with, without names: writers differ in those.

    A head that shares the embeddings' weights may be stored or left out, so equals count once.
    """
    ends = sorted(tensors_of_ends(checkpoint.names))[:FINGERPRINT_TENSORS]
    beginnings = (checkpoint.tensor(name).beginning(FINGERPRINT_BYTES) for name in ends)
    return sorted({hashlib.sha256(content).hexdigest() for content in beginnings})


@dataclass(frozen=True, slots=True, kw_only=True)
class StoredTensor:
    """A tensor in a shard, not yet read. `offset` and `nbytes` are bytes within `file`."""

    name: str
    file: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    nbytes: int

    def read(self) -> Tensor:
        """The tensor in its stored dtype, in memory of its own. Raises ModelDamaged."""
        if self.nbytes == 0:
            return torch.empty(self.shape, dtype=self.dtype)
        data = torch.empty(self.nbytes, dtype=torch.uint8)
        self._copy_to(memoryview(data.numpy().data))
        return data.view(self.dtype).reshape(self.shape)

    def beginning(self, most: int) -> bytes:
        """Its first `most` bytes as they are stored, or all if it has fewer. Raises as `read`."""
        content = bytearray(min(most, self.nbytes))
        self._copy_to(memoryview(content))
        return bytes(content)

    def _copy_to(self, target: memoryview) -> None:
        try:
            with self.file.open("rb", buffering=0) as shard:
                shard.seek(self.offset)
                _fill(shard, target)
        except OSError as error:
            raise ModelDamaged(f"{self.file.name} cannot be read: {error}.") from error
        except EOFError as error:
            raise ModelDamaged(f"{self.file.name} is cut short.") from error

    def map(self) -> Tensor:
        """The tensor on its file, read where it is touched; not to be written to. Raises as `read`.

        The system may take its pages back whenever memory is short.
        """
        if self.nbytes == 0:
            return self.read()
        begin = self.offset - self.offset % mmap.ALLOCATIONGRANULARITY
        length = self.offset - begin + self.nbytes
        try:
            with self.file.open("rb") as shard:
                mapped = mmap.mmap(shard.fileno(), length, access=mmap.ACCESS_READ, offset=begin)
        except (OSError, ValueError) as error:
            raise ModelDamaged(f"{self.file.name} cannot be read: {error}.") from error
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="The given buffer is not writable")
            data = torch.frombuffer(
                mapped, dtype=torch.uint8, count=self.nbytes, offset=self.offset - begin
            )
        if data.data_ptr() % self.dtype.itemsize:
            return self.read()
        return data.view(self.dtype).reshape(self.shape)


class Checkpoint:
    """The tensors of a model folder by name. Raises ModelDamaged where a file is not as it says."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._headers: dict[str, dict[str, StoredTensor]] = {}
        if (folder / INDEX_FILE).exists():
            index = _read_json(folder / INDEX_FILE).get("weight_map")
            if not isinstance(index, dict) or not all(
                isinstance(file, str) for file in index.values()
            ):
                raise ModelDamaged(f"{INDEX_FILE} has no map of tensors.")
            self._file_of: dict[str, str] = index
        else:
            self._file_of = dict.fromkeys(self._header(SINGLE_FILE), SINGLE_FILE)

    @property
    def names(self) -> tuple[str, ...]:
        """Every tensor's name, also of shards that are not on this computer."""
        return tuple(self._file_of)

    def tensor(self, name: str) -> StoredTensor:
        """Where `name` lies; its shard's header is read once."""
        found = self._header(self._file_of[name]).get(name)
        if found is None:
            raise ModelDamaged(f"{self._file_of[name]} does not hold {name}, as the index says.")
        return found

    def _header(self, file: str) -> dict[str, StoredTensor]:
        if file not in self._headers:
            if Path(file).name != file:
                raise ModelDamaged(f"{INDEX_FILE} names {file!r}, which is outside the folder.")
            self._headers[file] = _read_header(self._folder / file)
        return self._headers[file]


def _read_header(path: Path) -> dict[str, StoredTensor]:
    try:
        with path.open("rb") as shard:
            size = path.stat().st_size
            (length,) = struct.unpack("<Q", shard.read(8))
            if length > min(size - 8, MAX_HEADER_BYTES):
                raise ModelDamaged(f"{path.name} is cut short or no safetensors file.")
            entries = json.loads(shard.read(length))
            start = 8 + length
            return {
                name: _stored(path, name, entry, start, size)
                for name, entry in entries.items()
                if name != "__metadata__"
            }
    except FileNotFoundError as error:
        raise ModelDamaged(f"{path.name} is missing in {path.parent}.") from error
    except OSError as error:
        raise ModelDamaged(f"{path.name} cannot be read: {error}.") from error
    except _MALFORMED as error:
        raise ModelDamaged(f"{path.name} is no safetensors file.") from error


def _stored(
    path: Path, name: str, entry: Mapping[str, object], start: int, size: int
) -> StoredTensor:
    dtype = DTYPES.get(str(entry["dtype"]))
    if dtype is None:
        raise ModelDamaged(f"{path.name} stores {name} as {entry['dtype']}, which is not known.")
    shape = tuple(int(side) for side in cast(list[int], entry["shape"]))
    begin, end = (int(place) for place in cast(list[int], entry["data_offsets"]))
    expected = dtype.itemsize
    for side in shape:
        expected *= side
    if not 0 <= begin <= end or end - begin != expected or start + end > size:
        raise ModelDamaged(f"{path.name} is cut short: {name} lies beyond its end.")
    return StoredTensor(
        name=name, file=path, dtype=dtype, shape=shape, offset=start + begin, nbytes=expected
    )


def _fill(shard: BinaryIO, target: memoryview) -> None:
    filled = 0
    while filled < len(target):
        got = shard.readinto(target[filled:])  # type: ignore[attr-defined]  # a raw file has it
        if not got:
            raise EOFError
        filled += got


def _read_json(path: Path) -> dict[str, object]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise ModelDamaged(f"{path.name} is missing in {path.parent}.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise ModelDamaged(f"{path.name} in {path.parent} cannot be read.") from error
    if not isinstance(content, dict):
        raise ModelDamaged(f"{path.name} in {path.parent} is not a JSON object.")
    return content


def _shards(weight_map: Mapping[str, str], names: Iterable[str]) -> tuple[str, ...]:
    return tuple(sorted({weight_map[name] for name in names}))


def _bare(name: str) -> str:
    """A block tensor's name without what stands before the block's number."""
    found = _BLOCK.search(name)
    return name[found.start(1) :] if found else name
