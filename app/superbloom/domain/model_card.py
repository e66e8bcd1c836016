"""What the program knows of a model: where it comes from, its shape, its sizes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Precision(StrEnum):
    """The form in which a server holds its weights."""

    FP32 = "fp32"
    BF16 = "bf16"
    FP16 = "fp16"
    INT8 = "int8"
    NF4 = "nf4"

    @classmethod
    def parse(cls, text: str) -> Precision:
        """The one of this name. Raises ValueError with a sentence that names all."""
        if text not in tuple(cls):
            raise ValueError(f"{text!r} is not one of {', '.join(cls)}")
        return cls(text)


@dataclass(frozen=True, slots=True)
class HubSource:
    """A repository on the Hugging Face hub at a revision (branch, tag or commit)."""

    repository: str
    revision: str = "main"


@dataclass(frozen=True, slots=True)
class WheelSource:
    """A GGUF file inside a wheel on the Python package index, checked by hash.

    `wheel_bytes` is the wheel's size, 0 if not known.
    """

    package: str
    version: str
    wheel_sha256: str
    member: str
    wheel_bytes: int = 0


@dataclass(frozen=True, slots=True)
class GgufSource:
    """A GGUF file on this computer."""

    path: str


@dataclass(frozen=True, slots=True)
class FolderSource:
    """A folder with config.json, tokenizer files and safetensors on this computer."""

    path: str


ModelSource = HubSource | WheelSource | GgufSource | FolderSource


@dataclass(frozen=True, slots=True)
class ModelCard:
    """A catalogue entry: a model's name, origin and licence.

    `sources` are tried in order. `config` is the model's configuration (the content of its
    config.json), from which shape and sizes are computed. `chat` is False for a model that only
    continues text.
    """

    id: str
    name: str
    licence: str
    sources: tuple[ModelSource, ...]
    config: Mapping[str, object]
    note: str = ""
    chat: bool = True


@dataclass(frozen=True, slots=True)
class ModelShape:
    """Sizes computed from a configuration, in bytes unless a name says otherwise."""

    family: str
    blocks: int
    hidden_size: int
    vocabulary: int
    context_tokens: int
    parameters: int
    block_bytes: Mapping[Precision, int]
    """The largest block's weights in each precision that the model can be held in."""
    client_bytes: int
    """What the client holds: embeddings, final norm and head in bf16."""
    cache_bytes_per_token: int
    """Keys and values of one block for one token, bf16."""
    published_bytes: int = 4
    """Bytes of one weight in the form in which the model was published."""
