"""A model's tokenizer and chat template: turns to token ids, token ids to text.

transformers' own loader takes seconds to import; this reads tokenizer.json with the `tokenizers`
library and renders the template itself. Folders without tokenizer.json go through transformers.

Nobody can forge a turn: where a message spells one of the model's control tokens, its characters
are encoded as the plain text they are.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import tokenizers

from superbloom.domain.conversation import ChatTurn
from superbloom.domain.errors import (
    ModelDamaged,
    ModelNotHere,
    ModelUnsupported,
    SuperbloomError,
)
from superbloom.inference.chat_template import CUT, ChatTemplate, ControlTokens
from superbloom.inference.detokenizer import Detokenizer, Vocabulary

END_MARKS = ("<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "<end_of_turn>")
"""Control tokens that end an answer wherever a vocabulary has them, declared or not."""


class ChatTokenizer:
    """One model's tokenizer; may be shared by threads. `end_ids`: the tokens that end an answer."""

    def __init__(
        self, vocabulary: Vocabulary, template: ChatTemplate | None, end_ids: frozenset[int]
    ) -> None:
        self.end_ids = end_ids
        self._vocabulary = vocabulary
        self._backend = vocabulary.backend
        self._template = template
        self._control = ControlTokens(_control_tokens(self._backend))
        self._newline = self._ids("\n")

    @classmethod
    def load(cls, folder: Path) -> ChatTokenizer:
        """Read a model folder's tokenizer. Raises ModelNotHere, ModelDamaged, ModelUnsupported."""
        if not folder.is_dir():
            raise ModelNotHere(f"There is no model in {folder}.")
        try:
            return cls._load(folder)
        except SuperbloomError:
            raise
        except Exception as error:  # foreign files may hold anything, anywhere
            raise ModelDamaged(
                f"The tokenizer's files in {folder} are not as they should be: {error}."
            ) from error

    @classmethod
    def _load(cls, folder: Path) -> ChatTokenizer:
        config = {
            **_read_json(folder / "special_tokens_map.json"),
            **_read_json(folder / "tokenizer_config.json"),
        }
        special_names = {
            name: content
            for name, value in config.items()
            if name.endswith("_token") and (content := _content(value)) is not None
        }
        backend = _backend(folder)
        _add_declared_tokens(backend, config, special_names)
        source = _template_source(folder, config)
        template = None
        if source is not None:
            named = [token for token in _added_tokens(backend) if token in source]
            template = ChatTemplate(source, special_names, _control_tokens(backend), named)
        end_ids = frozenset(_end_ids(folder, special_names, backend))
        return cls(Vocabulary.of(backend), template, end_ids)

    @property
    def backend(self) -> tokenizers.Tokenizer:
        """The library's own tokenizer, to be looked at only."""
        return self._backend

    def render(self, messages: Sequence[ChatTurn]) -> list[int]:
        """The ids of a prompt that asks the model for the next turn.

        A model without a chat template gets "role: text" paragraphs. Raises InputRejected when
        the template refuses the order of the turns.
        """
        if self._template is None:
            paragraphs = [f"{turn.role}: {turn.text}\n\n" for turn in messages]
            return self.encode("".join(paragraphs) + "assistant:")
        return self._pieces(self._template.render(messages), beginning=False)

    def encode(self, text: str) -> list[int]:
        """The ids of plain text as a prompt begins: with bos where the tokenizer adds it."""
        return self._pieces(self._control.cut(text), beginning=True)

    def detokenizer(self) -> Detokenizer:
        """A fresh one for an answer."""
        return Detokenizer(self._vocabulary)

    def _pieces(self, text: str, *, beginning: bool) -> list[int]:
        first, *later = text.split(CUT)
        ids = list(self._backend.encode(first, add_special_tokens=beginning).ids)
        for piece in later:
            ids += self._continued(piece)
        return ids

    def _continued(self, piece: str) -> list[int]:
        """The ids of a piece that stands inside a text: without a space of its own at its start."""
        ids = self._ids("\n" + piece)
        places = len(self._newline)
        return ids[places:] if ids[:places] == self._newline else self._ids(piece)

    def _ids(self, text: str) -> list[int]:
        return list(self._backend.encode(text, add_special_tokens=False).ids)


def _backend(folder: Path) -> tokenizers.Tokenizer:
    file = folder / "tokenizer.json"
    if not file.exists():
        return _backend_of_transformers(folder)
    try:
        backend = tokenizers.Tokenizer.from_file(str(file))
    except Exception as error:
        raise ModelDamaged(f"The tokenizer {file} cannot be read: {error}.") from error
    backend.no_truncation()
    backend.no_padding()
    return backend


def _backend_of_transformers(folder: Path) -> tokenizers.Tokenizer:
    """The tokenizer of a folder in an older form, converted by transformers (slow to import)."""
    from transformers import AutoTokenizer  # noqa: PLC0415  seconds that most folders never pay

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, ImportError, KeyError, TypeError, AttributeError) as error:
        raise ModelUnsupported(f"The tokenizer in {folder} cannot be loaded: {error}.") from error
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if not isinstance(backend, tokenizers.Tokenizer):
        raise ModelUnsupported(f"The tokenizer in {folder} has no tokenizer.json form.")
    return backend


def _add_declared_tokens(
    backend: tokenizers.Tokenizer, config: Mapping[str, object], special_names: Mapping[str, str]
) -> None:
    """Make the tokens that only tokenizer_config.json declares known to the tokenizer."""
    known = set(_added_tokens(backend))
    declared = config.get("added_tokens_decoder")
    if isinstance(declared, dict):
        for _, entry in sorted(declared.items(), key=lambda item: int(item[0])):
            content = _content(entry)
            if content is not None and content not in known:
                special = bool(entry.get("special"))
                token = tokenizers.AddedToken(content, special=special, normalized=not special)
                (backend.add_special_tokens if special else backend.add_tokens)([token])
                known.add(content)
    for content in special_names.values():
        if content not in known and backend.token_to_id(content) is not None:
            backend.add_special_tokens([content])


def _added_tokens(backend: tokenizers.Tokenizer) -> list[str]:
    return [token.content for token in backend.get_added_tokens_decoder().values()]


def _control_tokens(backend: tokenizers.Tokenizer) -> list[str]:
    added = backend.get_added_tokens_decoder().values()
    return [token.content for token in added if token.special]


def _template_source(folder: Path, config: Mapping[str, object]) -> str | None:
    file = folder / "chat_template.jinja"
    if file.exists():
        return file.read_text(encoding="utf-8")
    named = _read_json(folder / "chat_template.json").get("chat_template")
    source = named or config.get("chat_template")
    if isinstance(source, list):  # several by name
        by_name = {entry["name"]: entry["template"] for entry in source}
        source = by_name.get("default", next(iter(by_name.values()), None))
    return source if isinstance(source, str) else None


def _end_ids(
    folder: Path, special_names: Mapping[str, str], backend: tokenizers.Tokenizer
) -> Iterator[int]:
    config = _read_json(folder / "config.json")
    text_config = config.get("text_config")
    for source in (
        _read_json(folder / "generation_config.json"),
        config,
        text_config if isinstance(text_config, dict) else {},
    ):
        declared = source.get("eos_token_id")
        for number in declared if isinstance(declared, list) else [declared]:
            if isinstance(number, int):
                yield number
    control = _control_tokens(backend)
    marks = [mark for mark in END_MARKS if mark in control]
    for content in (*marks, special_names.get("eos_token", "")):
        number = backend.token_to_id(content)
        if number is not None:
            yield number


def _content(value: object) -> str | None:
    """A token's text; configuration files write it as text or as an object with `content`."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def _read_json(file: Path) -> dict[str, object]:
    """The file's object; empty if there is no such file. Raises ModelDamaged."""
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError as error:
        raise ModelDamaged(f"The file {file} is not readable: {error}.") from error
    if not isinstance(content, dict):
        raise ModelDamaged(f"The file {file} does not hold an object.")
    return content
