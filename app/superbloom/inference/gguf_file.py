"""A GGUF file from anywhere, opened with care, for its readers trust it.

What they would count to without end is checked before they see it, and what they raise, whatever it
is, becomes a ModelError.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from gguf import GGUFReader
from transformers.integrations.gguf.reader import read_gguf_metadata

from superbloom.domain.errors import ModelDamaged, ModelUnsupported, SuperbloomError

FOLDER_INSTEAD = "Import the model as a folder with safetensors instead."
_COPY_AGAIN = "Fetch or copy the file again."

BLOCK = re.compile(r"^blk\.(\d+)\.")
"""What the names of a block's tensors begin with."""
_BLOCK_COUNT = re.compile(r"[^.]+\.block_count")


def open_gguf(gguf: Path) -> tuple[GGUFReader, str]:
    """The file and the name of its family. Raises ModelDamaged."""
    with _damage(f"{gguf.name} is not a whole GGUF file"):
        _check_lengths(gguf)
        reader = GGUFReader(gguf)
        _check_blocks(gguf, reader)
        return reader, str(reader.fields["general.architecture"].contents())


@contextlib.contextmanager
def _damage(sentence: str) -> Iterator[None]:
    """A boundary: anything raised within comes from what the file holds. Raises ModelDamaged."""
    try:
        yield
    except SuperbloomError:
        raise
    except Exception as error:
        raise ModelDamaged(f"{sentence}: {_said(error)}", _COPY_AGAIN) from error


@contextlib.contextmanager
def no_support(sentence: str) -> Iterator[None]:
    """The same where the family is the likelier reason; the system's refusals to write pass.

    Raises ModelUnsupported, OSError.
    """
    try:
        yield
    except (SuperbloomError, OSError):
        raise
    except Exception as error:
        raise ModelUnsupported(f"{sentence}: {_said(error)}", FOLDER_INSTEAD) from error


def _said(error: Exception) -> str:
    """The first line of an error, or its kind if it says nothing."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]


def _check_lengths(gguf: Path) -> None:
    """Walk through the header by transformers' reader, which cannot leave the file.

    gguf's own counts as far as a damaged length says. Raises ModelDamaged and what the reader does.
    """
    _, tensors = read_gguf_metadata(str(gguf))
    if not tensors:
        raise ModelDamaged(f"{gguf.name} holds no tensors.", _COPY_AGAIN)


def _check_blocks(gguf: Path, reader: GGUFReader) -> None:
    """Raises ModelDamaged if the header counts other blocks than the file has.

    A model is built by that count, whichever family's it is.
    """
    found = (BLOCK.match(tensor.name) for tensor in reader.tensors)
    blocks = {int(match[1]) for match in found if match}
    for key, field in reader.fields.items():
        if _BLOCK_COUNT.fullmatch(key) and field.contents() != len(blocks):
            raise ModelDamaged(
                f"{gguf.name} says that it has {field.contents()} blocks and holds {len(blocks)}.",
                _COPY_AGAIN,
            )
