"""`superbloom invite`, `join` and `leave`: which computers we work with."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from superbloom.cli.node_access import Absent, node
from superbloom.cli.terminal import Progress, print_json, printable
from superbloom.cli.values import hours
from superbloom.control.messages import (
    CreateInvite,
    Invitation,
    JoinSwarm,
    LeaveSwarm,
    SwarmStatus,
)
from superbloom.domain.record import to_plain
from superbloom.storage.paths import DataFolder

SWARM_SECONDS = 120.0


def add_words(words: Any, folder: argparse.ArgumentParser) -> None:
    """Declare `invite`, `join` and `leave`."""
    invite = words.add_parser(
        "invite",
        parents=[folder],
        help="make a code that lets another computer join",
        description="Make a code that lets other computers join this swarm. Whoever has it can.",
    )
    invite.add_argument("--hours", type=hours, default=168.0, help="how long it is good (168)")
    invite.add_argument(
        "--address", default="", help="host name or IP at which others reach this computer"
    )
    invite.set_defaults(run=make_invite)
    join = words.add_parser("join", parents=[folder], help="join the swarm of an invite code")
    join.add_argument("code", metavar="CODE", help="as `superbloom invite` printed it")
    join.set_defaults(run=join_swarm)
    leave = words.add_parser(
        "leave", parents=[folder], help="go back to a swarm of this computer alone"
    )
    leave.set_defaults(run=leave_swarm)
    for parser in (invite, join):
        parser.add_argument(
            "--keep-in-file",
            action="store_true",
            help="without a keyring, keep the swarm's secret in a file that only you can read",
        )
    for parser in (invite, join, leave):
        parser.add_argument("--json", action="store_true", help="print JSON")


def make_invite(given: argparse.Namespace) -> int:
    """`invite`: the code on stdout, what to know on stderr; gives the exit code."""
    with node(DataFolder.at(given.data_dir), Absent.START) as link:
        request = CreateInvite(
            hours=given.hours, address=given.address, keep_in_file=given.keep_in_file
        )
        invitation = link.ask(request, Invitation, SWARM_SECONDS)
    if given.json:
        print_json(to_plain(invitation))
        return 0
    print(invitation.code)
    until = time.strftime("%Y-%m-%d %H:%M", time.localtime(invitation.expires_at))
    sys.stderr.write(f"Good until {until}. On the other computer: superbloom join CODE\n")
    return 0


def join_swarm(given: argparse.Namespace) -> int:
    """`join`; gives the exit code."""
    code = "".join(given.code.split())
    progress = Progress()
    with node(DataFolder.at(given.data_dir), Absent.START) as link:
        progress.say("Joining …")
        try:
            request = JoinSwarm(code=code, keep_in_file=given.keep_in_file)
            status = link.ask(request, SwarmStatus, SWARM_SECONDS)
        finally:
            progress.clear()
    _show(status, f"Joined the swarm {status.name}.", as_json=given.json)
    return 0


def leave_swarm(given: argparse.Namespace) -> int:
    """`leave`; gives the exit code."""
    with node(DataFolder.at(given.data_dir), Absent.BORROW, share=False) as link:
        status = link.ask(LeaveSwarm(), SwarmStatus, SWARM_SECONDS)
    _show(status, "Left. This computer is in a swarm of its own.", as_json=given.json)
    return 0


def _show(status: SwarmStatus, sentence: str, *, as_json: bool) -> None:
    if as_json:
        print_json(to_plain(status))
    else:
        print(printable(sentence))
