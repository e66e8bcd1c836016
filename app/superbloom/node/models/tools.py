"""What the models' service needs of inference: imported when first used, for it takes seconds."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Protocol

from superbloom.domain.model_card import ModelShape
from superbloom.domain.span import Span


class ModelTools(Protocol):
    """Everything about models that needs torch. Called in threads."""

    def shape_of(self, config: Mapping[str, object]) -> ModelShape:
        """Raises ModelUnsupported."""

    def import_gguf(self, gguf: Path, folder: Path, progress: Callable[[int, int], None]) -> None:
        """Raises ModelDamaged, ModelUnsupported."""

    def shards(self, weight_map: Mapping[str, str], span: Span | None) -> frozenset[str]:
        """The files that hold the client's ends and, if given, the blocks of `span`."""


class InferenceTools:
    """The real ones."""

    def shape_of(self, config: Mapping[str, object]) -> ModelShape:
        """See `inference.shape`."""
        from superbloom.inference.shape import shape_of  # noqa: PLC0415 (imports torch)

        return shape_of(config)

    def import_gguf(self, gguf: Path, folder: Path, progress: Callable[[int, int], None]) -> None:
        """See `inference.gguf_import`."""
        from superbloom.inference.gguf_import import import_gguf  # noqa: PLC0415 (imports torch)

        import_gguf(gguf, folder, progress=progress)

    def shards(self, weight_map: Mapping[str, str], span: Span | None) -> frozenset[str]:
        """See `inference.weights`."""
        from superbloom.inference.weights import (  # noqa: PLC0415 (imports torch)
            shards_of_blocks,
            shards_of_ends,
        )

        blocks = shards_of_blocks(weight_map, span) if span else ()
        return frozenset((*shards_of_ends(weight_map), *blocks))
