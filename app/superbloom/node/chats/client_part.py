"""The client's part of a model: embeddings, head and tokenizer, with the shape peers agree on.

Importing this module imports torch and transformers, which takes seconds: do it in a thread.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from superbloom.inference.device import CPU, default_precision
from superbloom.inference.ends import ClientEnds
from superbloom.inference.shape import shape_of
from superbloom.inference.tokenizer import ChatTokenizer
from superbloom.inference.weights import fingerprint, read_config
from superbloom.machine.processor import usable_cores
from superbloom.pipeline.guessing import GuessSource
from superbloom.pipeline.remote_model import RemoteModel
from superbloom.pipeline.served_model import ServedModel
from superbloom.pipeline.swarm_access import Present


@dataclass(frozen=True, slots=True)
class ClientPart:
    """What a client holds of a model, whatever the swarm."""

    served: ServedModel
    context_tokens: int
    ends: ClientEnds
    tokenizer: ChatTokenizer

    def in_swarm(self, present: Present, guesses: Callable[[str, int], GuessSource]) -> RemoteModel:
        """The whole model, its blocks being in the swarm of the moment.

        `guesses` gives what guesses ahead for a model's id and the size of its vocabulary.
        """
        return RemoteModel(
            present=present,
            ends=self.ends,
            tokenizer=self.tokenizer,
            served=self.served,
            context_tokens=self.context_tokens,
            threads=usable_cores(),
            guesses=guesses(self.served.id, self.ends.vocabulary),
        )


def load_client_part(model: str, folder: Path) -> ClientPart:
    """Read the client's files in `folder`. Raises ModelError."""
    shape = shape_of(read_config(folder))
    served = ServedModel(
        id=model,
        fingerprint=fingerprint(folder),
        blocks=shape.blocks,
        hidden_size=shape.hidden_size,
    )
    ends = ClientEnds.load(folder, precision=default_precision(CPU), device=CPU)
    return ClientPart(served, shape.context_tokens, ends, ChatTokenizer.load(folder))
