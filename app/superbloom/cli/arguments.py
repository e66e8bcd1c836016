"""The words of the terminal and their options."""

from __future__ import annotations

import argparse
import difflib
import sys
from typing import NoReturn

from superbloom import __version__
from superbloom.cli import chat, models, share, status, stop, swarm
from superbloom.cli.values import data_folder

ELSEWHERE = {
    "window": "open the window (the same as no word at all)",
    "node": "run the core without a window",
    "serve": "only serve blocks of a model",
}
"""Words that `superbloom.__main__` answers itself; here for the list of words."""


def parse(arguments: list[str]) -> argparse.Namespace:
    """The command line as values; `run` is the command. Ends the program for --help and errors."""
    parser = _parser()
    words = _words(parser)
    word = next((given for given in _without_folder(arguments) if not given.startswith("-")), None)
    if word is not None and word not in words:
        close = difflib.get_close_matches(word, words, 1)
        parser.error(
            f"there is no command {word!r}" + (f"; did you mean {close[0]!r}?" if close else "")
        )
    given = parser.parse_args(arguments)
    if not hasattr(given, "run"):
        parser.error("say what to do: see superbloom --help")
    return given


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        sentence = message[:1].upper() + message[1:]
        sys.stderr.write(
            f"superbloom: {sentence.rstrip('.?')}{'?' * sentence.endswith('?') or '.'}\n"
        )
        sys.stderr.write(f"  See `{self.prog} --help`.\n")
        raise SystemExit(2)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="superbloom",
        description="Run together a language model that none of us could run alone. Without a "
        "command the window opens.",
        epilog="`superbloom COMMAND --help` tells more of each.",
    )
    parser.add_argument("--version", action="version", version=f"superbloom {__version__}")
    folder = argparse.ArgumentParser(add_help=False)
    for place in (parser, folder):
        place.add_argument(
            "--data-dir",
            type=data_folder,
            metavar="FOLDER",
            default=argparse.SUPPRESS,
            help="keep everything in this folder",
        )
    words = parser.add_subparsers(metavar="COMMAND", title="commands", parser_class=_Parser)
    for module in (chat, status, share, swarm, models, stop):
        module.add_words(words, folder)
    for word, line in ELSEWHERE.items():
        words.add_parser(word, help=line, add_help=False)
    parser.set_defaults(data_dir=None)
    return parser


def _words(parser: argparse.ArgumentParser) -> list[str]:
    return [
        word
        for action in parser._actions
        if isinstance(action, argparse._SubParsersAction)
        for word in action.choices
    ]


def _without_folder(arguments: list[str]) -> list[str]:
    """Without the folder, which would look like the command."""
    if "--data-dir" not in arguments:
        return arguments
    at = arguments.index("--data-dir")
    return arguments[:at] + _without_folder(arguments[at + 2 :])
