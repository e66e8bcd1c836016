"""Chat templates: a model's own Jinja program that writes a conversation as one text.

Templates come with downloaded models, so they run in a sandbox and see plain values only, with
the functions that model makers count on (those of transformers' `apply_chat_template`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from typing import NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.utils
from jinja2.sandbox import ImmutableSandboxedEnvironment

from superbloom.domain.conversation import ChatTurn, Role
from superbloom.domain.errors import InputRejected, ModelDamaged

CUT = "\ufdd0"
"""Marks where a rendered text must be cut before encoding. A noncharacter: text never has it."""


class ControlTokens:
    """Control tokens that a message must not be able to write."""

    def __init__(self, tokens: Iterable[str]) -> None:
        # A token of one character cannot be cut; such tokens (a newline, a tab) end no turn.
        cuttable = sorted((token for token in tokens if len(token) > 1), key=len, reverse=True)
        self._pattern = re.compile("|".join(map(re.escape, cuttable)) or r"(?!)")

    def cut(self, text: str) -> str:
        """`text` with a CUT inside each control token it spells, so that no piece spells one."""
        text = text.replace(CUT, "")
        while self._pattern.search(text):
            text = self._pattern.sub(lambda found: found[0][0] + CUT + found[0][1:], text)
        return text


class ChatTemplate:
    """A compiled template with the names of the model's special tokens.

    `control` are the tokens that no message may write; `template_tokens` those that only the
    template and the model's own earlier answers may (`<think>` and the like).
    """

    def __init__(
        self,
        source: str,
        special_names: Mapping[str, str],
        control: Iterable[str],
        template_tokens: Iterable[str] = (),
    ) -> None:
        try:
            self._template = _environment().from_string(source)
        except jinja2.TemplateError as error:
            raise ModelDamaged(f"The model's chat template is damaged: {error}.") from error
        self._special_names = dict(special_names)
        control = tuple(control)
        self._in_answers = ControlTokens(control)
        self._elsewhere = ControlTokens((*control, *template_tokens))

    def render(self, turns: Sequence[ChatTurn]) -> str:
        """The prompt's text, with CUTs. Raises InputRejected if the template refuses the turns."""
        messages = [self._message(turn) for turn in turns]
        try:
            return self._rendered(messages)
        except Exception as error:
            # Some models know no system turn: their makers put such text before the question.
            merged = _without_system(messages)
            if merged is not None:
                with suppress(Exception):
                    return self._rendered(merged)
            raise InputRejected(
                f"The model's chat template refuses this conversation: {error}.",
                "Begin a new conversation.",
            ) from error

    def _message(self, turn: ChatTurn) -> dict[str, str]:
        control = self._in_answers if turn.role is Role.ASSISTANT else self._elsewhere
        return {"role": turn.role.value, "content": control.cut(turn.text)}

    def _rendered(self, messages: list[dict[str, str]]) -> str:
        return self._template.render(
            **self._special_names,
            messages=messages,
            tools=None,
            documents=None,
            add_generation_prompt=True,
        )


def _without_system(messages: list[dict[str, str]]) -> list[dict[str, str]] | None:
    """The same with the system's words at the head of the first question; None if neither is."""
    if [message["role"] for message in messages[:2]] != [Role.SYSTEM, Role.USER]:
        return None
    system, user, *rest = messages
    return [{**user, "content": f"{system['content']}\n\n{user['content']}"}, *rest]


class _GenerationTag(jinja2.ext.Extension):
    """`{% generation %}` marks the model's words for training; here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012  (as the base class declares it)

    def parse(self, parser: jinja2.parser.Parser) -> list[jinja2.nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


class _Namespace(jinja2.utils.Namespace):
    """A namespace whose names cannot reach into Python's own."""

    def __setitem__(self, name: str, value: object) -> None:
        if name.startswith("_"):
            raise jinja2.TemplateError(f"a namespace cannot hold {name}")
        super().__setitem__(name, value)


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_GenerationTag, "jinja2.ext.loopcontrols"],
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    environment.globals["namespace"] = _Namespace
    return environment


def _to_json(
    value: object,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)
