"""`superbloom model`: the models on this computer."""

from __future__ import annotations

import argparse
import concurrent.futures
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from superbloom.cli.node_access import Absent, node
from superbloom.cli.terminal import (
    Progress,
    print_json,
    printable,
    progress_in_words,
    size_in_words,
    table,
)
from superbloom.cli.values import blocks
from superbloom.control.messages import (
    CancelFetch,
    ChangeSettings,
    Done,
    FetchModel,
    GetStatus,
    ImportModel,
    ModelInfo,
    ModelProgress,
    ModelState,
    NodeStatus,
    RemoveModel,
    Request,
    UseModel,
    VerifyModel,
)
from superbloom.domain.errors import ModelError
from superbloom.domain.model_card import Precision
from superbloom.domain.record import to_plain
from superbloom.storage.paths import DataFolder

if TYPE_CHECKING:
    from superbloom.cli.node_link import NodeLink

R = TypeVar("R")

LONG_SECONDS = 24 * 3600.0
STATE_WORDS = {
    ModelState.ABSENT: "not here",
    ModelState.FETCHING: "being fetched",
    ModelState.PARTIAL: "in part",
    ModelState.READY: "here",
    ModelState.DAMAGED: "damaged",
}


def add_words(words: Any, folder: argparse.ArgumentParser) -> None:
    """Declare `model list|fetch|import|verify|remove|use|cancel|guess`."""
    model = words.add_parser("model", parents=[folder], help="the models on this computer")
    verbs = model.add_subparsers(metavar="VERB", required=True)

    def verb(name: str, run: Any, line: str, *, takes: str = "model") -> argparse.ArgumentParser:
        parser: argparse.ArgumentParser = verbs.add_parser(
            name, parents=[folder], help=line, description=f"{line[:1].upper()}{line[1:]}."
        )
        if takes:
            parser.add_argument(takes, metavar=takes.upper())
        parser.add_argument("--json", action="store_true", help="print JSON")
        parser.set_defaults(run=run)
        return parser

    verb("list", list_models, "the models there are, and their sizes", takes="")
    fetch = verb("fetch", fetch_model, "fetch a model's files; goes on where it broke off")
    fetch.add_argument("--folder", default="", help="keep the files in this folder")
    fetch.add_argument("--blocks", type=blocks, metavar="A:B", help="only blocks A to B-1")
    imports = verb("import", import_model, "take a GGUF file or a model folder in", takes="path")
    imports.add_argument("--id", default="", help="what to call it (default: the file's name)")
    verb("verify", verify_model, "check every file of a model")
    verb("remove", remove_model, "delete a model's files")
    verb("use", use_model, "make it the model that chats and the share use")
    verb("cancel", cancel_fetch, "stop a fetch; what is here stays")
    line = (
        "let a small model on this computer guess ahead, or not: answers are the same, but faster"
    )
    guess = verb("guess", guess_ahead, line, takes="")
    guess.add_argument("wanted", choices=("on", "off"))


def list_models(given: argparse.Namespace) -> int:
    """`model list`; gives the exit code."""
    with _node(given) as link:
        status = link.ask(GetStatus(), NodeStatus)
    if given.json:
        print_json(to_plain(status.models))
        return 0
    rows = [_row(info, chosen=info.id == status.model) for info in status.models]
    head = ("MODEL", "STATE", "ON DISK", "BLOCKS", "BF16", "INT8", "NF4", "CONTEXT", "LICENCE", "")
    print(printable(table(head, rows)))
    return 0


def fetch_model(given: argparse.Namespace) -> int:
    """`model fetch`; Ctrl-C stops the fetch and keeps what is here. Gives the exit code."""
    folder = str(Path(given.folder).expanduser().absolute()) if given.folder else ""
    request = FetchModel(
        model=given.model,
        folder=folder,
        first_block=given.blocks.start if given.blocks else None,
        end_block=given.blocks.end if given.blocks else None,
    )
    with _node(given) as link:
        link.listen()
        try:
            info = _follow(link, link.ask(request, ModelInfo))
        except KeyboardInterrupt:
            link.ask(CancelFetch(model=given.model), Done)
            raise
    return _show(info, given)


def import_model(given: argparse.Namespace) -> int:
    """`model import`; gives the exit code."""
    path = str(Path(given.path).expanduser().absolute())
    with _node(given) as link:
        link.listen()
        info = _follow(link, link.ask(ImportModel(path=path, id=given.id), ModelInfo, LONG_SECONDS))
    return _show(info, given)


def verify_model(given: argparse.Namespace) -> int:
    """`model verify`; exit code 1 if something is wrong with a file."""
    with _node(given) as link:
        link.listen()
        info = _long(link, VerifyModel(model=given.model), ModelInfo, given.model)
        if info.state is ModelState.DAMAGED:
            raise ModelError(
                f"Files of {info.id} are damaged or missing.",
                f"Run `superbloom model fetch {info.id}` to mend it.",
            )
    return _show(info, given)


def remove_model(given: argparse.Namespace) -> int:
    """`model remove`; gives the exit code."""
    with _node(given) as link:
        link.ask(RemoveModel(model=given.model), Done, 120.0)
    return _say_done(given, "removed", f"{given.model} is not on this computer any more.")


def use_model(given: argparse.Namespace) -> int:
    """`model use`; gives the exit code."""
    with _node(given) as link:
        status = link.ask(UseModel(model=given.model), NodeStatus, 60.0)
    if given.json:
        print_json(to_plain(status))
    else:
        print(printable(f"Chats use {status.model} from now on."))
    return 0


def guess_ahead(given: argparse.Namespace) -> int:
    """`model guess`; gives the exit code."""
    with _node(given) as link:
        status = link.ask(ChangeSettings(guess_ahead=given.wanted == "on"), NodeStatus)
    if given.json:
        print_json(to_plain(status))
    elif status.guess_ahead:
        print("A small model on this computer guesses ahead where that helps.")
    else:
        print("No small model guesses ahead.")
    return 0


def cancel_fetch(given: argparse.Namespace) -> int:
    """`model cancel`; gives the exit code."""
    with _node(given) as link:
        link.ask(CancelFetch(model=given.model), Done)
    return _say_done(given, "cancelled", f"The fetch of {given.model} is stopped.")


def _say_done(given: argparse.Namespace, done: str, sentence: str) -> int:
    if given.json:
        print_json({"model": given.model, "done": done})
    else:
        print(printable(sentence))
    return 0


def _node(given: argparse.Namespace) -> Any:
    return node(DataFolder.at(given.data_dir), Absent.BORROW, share=False)


def _follow(link: NodeLink, info: ModelInfo) -> ModelInfo:
    """Show how far the work on a model is until its end is told. Raises ModelError.

    Only that end counts, for lists of the models that come on the way do not say how it went.
    """
    if info.state is not ModelState.FETCHING:
        return info
    progress = Progress(verbose=True)
    try:
        while True:
            match link.next_event():
                case ModelProgress() as news if news.model == info.id and news.finished:
                    if news.error:
                        raise ModelError(news.error, news.next_step)
                    return _info_of(link, info)
                case ModelProgress() as news if news.model == info.id:
                    progress.say(progress_in_words(news.words, news.done_bytes, news.total_bytes))
    finally:
        progress.clear()


def _long(link: NodeLink, request: Request, reply: type[R], model: str) -> R:
    """A request that takes its time, with its progress."""
    progress = Progress(verbose=True)
    answer = link.begin(request, reply, LONG_SECONDS)
    try:
        while not answer.done():
            match link.next_event():
                case ModelProgress() as news if news.model == model and not news.finished:
                    progress.say(progress_in_words(news.words, news.done_bytes, news.total_bytes))
        return answer.result()
    except concurrent.futures.CancelledError:
        raise KeyboardInterrupt from None
    finally:
        answer.cancel()
        progress.clear()


def _info_of(link: NodeLink, info: ModelInfo) -> ModelInfo:
    models = link.ask(GetStatus(), NodeStatus).models
    return next((model for model in models if model.id == info.id), info)


def _show(info: ModelInfo, given: argparse.Namespace) -> int:
    if given.json:
        print_json(to_plain(info))
    else:
        size = f", {size_in_words(info.disk_bytes)} in {info.folder}" if info.disk_bytes else ""
        print(printable(f"{info.id}: {STATE_WORDS[info.state]}{size}"))
    return 0


def _row(info: ModelInfo, *, chosen: bool) -> tuple[str, ...]:
    def whole(precision: Precision) -> str:
        one = info.block_bytes.get(precision)
        return "-" if one is None else size_in_words(one * info.blocks)

    return (
        info.id,
        STATE_WORDS[info.state],
        size_in_words(info.disk_bytes) if info.disk_bytes else "-",
        str(info.blocks),
        whole(Precision.BF16),
        whole(Precision.INT8),
        whole(Precision.NF4),
        str(info.context_tokens),
        info.licence,
        "in use" if chosen else "",
    )
