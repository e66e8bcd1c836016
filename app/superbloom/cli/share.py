"""`superbloom share`: give blocks to the swarm, or stop."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from superbloom.cli.node_access import Absent, node
from superbloom.cli.status import share_in_words
from superbloom.cli.terminal import Progress, print_json, printable
from superbloom.cli.values import blocks, count, precision, size
from superbloom.control.messages import (
    GetStatus,
    ModelProgress,
    NodeStatus,
    ShareChanged,
    StartShare,
    StopShare,
)
from superbloom.domain.errors import ServerError
from superbloom.domain.model_card import Precision
from superbloom.domain.record import to_plain
from superbloom.domain.sharing import ShareRequest, ShareState, ShareStatus
from superbloom.storage.paths import DataFolder

if TYPE_CHECKING:
    from superbloom.cli.node_link import NodeLink

DRAIN_SECONDS = 3600.0
STOP_SECONDS = 60.0
ENDS = frozenset({ShareState.SERVING, ShareState.OFF, ShareState.FAILED})


def add_words(words: Any, folder: argparse.ArgumentParser) -> None:
    """Declare `share on`, `share off` and `share status`."""
    share = words.add_parser("share", parents=[folder], help="share this computer, or stop")
    verbs = share.add_subparsers(metavar="on|off|status", required=True)
    on = verbs.add_parser(
        "on",
        parents=[folder],
        help="give blocks to the swarm",
        description="Share this computer from now on, and wait until it serves.",
    )
    on.add_argument("--model", default="", help="another model than the chosen one")
    on.add_argument(
        "--blocks", type=blocks, metavar="A:B", help="blocks A to B-1 (default: the least covered)"
    )
    on.add_argument("--memory", type=size, metavar="SIZE", help="at most so much, as 4GB or 512M")
    on.add_argument(
        "--precision",
        type=precision,
        metavar="NAME",
        help=f"hold the weights in {', '.join(Precision)}",
    )
    on.add_argument("--device", help="cpu, cuda:0, mps (default: the fastest)")
    on.add_argument("--threads", type=count, metavar="N", help="CPU threads to use")
    on.set_defaults(run=start)
    off = verbs.add_parser("off", parents=[folder], help="stop sharing")
    off.add_argument("--drain", action="store_true", help="let open answers finish first")
    off.set_defaults(run=stop)
    status = verbs.add_parser("status", parents=[folder], help="what the share does")
    status.set_defaults(run=show)
    for parser in (on, off, status):
        parser.add_argument("--json", action="store_true", help="print JSON")


def start(given: argparse.Namespace) -> int:
    """`share on`; gives the exit code. Ctrl-C ends the waiting, not the share."""
    with node(DataFolder.at(given.data_dir), Absent.START) as link:
        request = ShareRequest(
            model=given.model or link.ask(GetStatus(), NodeStatus).model,
            span=given.blocks,
            memory_bytes=given.memory,
            precision=given.precision,
            device=given.device,
            threads=given.threads,
        )
        link.listen()
        status = _follow(link, link.ask(StartShare(request=request), ShareStatus, STOP_SECONDS))
        _show(status, as_json=given.json)
    return 0


def stop(given: argparse.Namespace) -> int:
    """`share off`; gives the exit code."""
    patience = DRAIN_SECONDS if given.drain else STOP_SECONDS
    with node(DataFolder.at(given.data_dir)) as link:
        _show(link.ask(StopShare(drain=given.drain), ShareStatus, patience), as_json=given.json)
    return 0


def show(given: argparse.Namespace) -> int:
    """`share status`; gives the exit code."""
    with node(DataFolder.at(given.data_dir)) as link:
        _show(link.ask(GetStatus(), NodeStatus).share, as_json=given.json)
    return 0


def _follow(link: NodeLink, status: ShareStatus) -> ShareStatus:
    """Wait until it serves; somebody may also turn it off again. Raises ServerError.

    An event may be of the share as it was before: an end counts once the node says it still.
    """
    progress = Progress()
    try:
        while True:
            if status.state in ENDS:
                status = link.ask(GetStatus(), NodeStatus).share
            if status.state is ShareState.FAILED:
                raise ServerError(status.reason or "This computer cannot share.")
            if status.state in ENDS:
                return status
            progress.say(share_in_words(status))
            match link.next_event():
                case ShareChanged(status=changed):
                    status = changed
                case ModelProgress() as news if news.model == status.model and news.error:
                    raise ServerError(news.error, news.next_step)
    finally:
        progress.clear()


def _show(status: ShareStatus, *, as_json: bool) -> None:
    if as_json:
        print_json(to_plain(status))
    else:
        print(printable(share_in_words(status)))
