"""The one program: its first word picks window, node, server or a command of the terminal."""

from __future__ import annotations

import sys

FOLDER = "--data-dir"
INTERRUPTED = 130


def main(arguments: list[str] | None = None) -> int:
    """Run what the command line asks for; gives the exit code."""
    word, rest = split_word(sys.argv[1:] if arguments is None else arguments)
    try:
        return _run(word, rest)
    except KeyboardInterrupt:  # while it was still being loaded
        return INTERRUPTED


def _run(word: str, rest: list[str]) -> int:
    if word == "node":
        from superbloom.node.main import main as run_node

        return run_node(rest)
    if word == "serve":
        from superbloom.node.serving.server_process import main as run_server

        return run_server(rest)
    if word == "window":
        from superbloom.window.main import main as open_window

        return open_window(rest)
    from superbloom.cli.main import main as run_command

    return run_command([word, *rest] if word else rest)


def split_word(arguments: list[str]) -> tuple[str, list[str]]:
    """The first word and what belongs to it; a folder given before the word goes to the end.

    Nothing, or a folder alone, means the window; another option in front means no word ("").
    """
    folder: list[str] = []
    at = 0
    while at < len(arguments):
        if arguments[at] == FOLDER and at + 1 < len(arguments):
            folder, at = arguments[at : at + 2], at + 2
        elif arguments[at].startswith(f"{FOLDER}="):
            folder, at = [arguments[at]], at + 1
        else:
            break
    if at == len(arguments):
        return "window", folder
    if arguments[at].startswith("-"):
        return "", arguments
    rest = arguments[at + 1 :]
    end = rest.index("--") if "--" in rest else len(rest)  # behind it there are no options
    return arguments[at], [*rest[:end], *folder, *rest[end:]]


if __name__ == "__main__":
    sys.exit(main())
