"""`superbloom status`: the node, its swarm, the share and the model, in text."""

from __future__ import annotations

import argparse
import sys
import time
from typing import Any

from superbloom.cli.node_access import node
from superbloom.cli.terminal import print_json, printable, size_in_words, table
from superbloom.control.messages import GetStatus, NodeStatus, Reach
from superbloom.domain.record import to_plain
from superbloom.domain.sharing import SHARE_WORDS, ShareState, ShareStatus
from superbloom.domain.swarm_map import ServerInfo, coverage
from superbloom.storage.paths import DataFolder

BAR_WIDTH = 60
WATCH_SECONDS = 1.0
REACH_WORDS = {Reach.LOCAL: "only this computer", Reach.OPEN: "open to computers with an invite"}


def add_words(words: Any, folder: argparse.ArgumentParser) -> None:
    """Declare `status`."""
    parser = words.add_parser(
        "status",
        parents=[folder],
        help="what this computer does and who is in the swarm",
        description="Show the swarm, who holds which blocks, the share and the model.",
    )
    parser.add_argument("--watch", action="store_true", help="keep showing it until Ctrl-C")
    parser.add_argument("--json", action="store_true", help="print JSON (with --watch: one a line)")
    parser.set_defaults(run=run)


def run(given: argparse.Namespace) -> int:
    """The command; gives the exit code."""
    with node(DataFolder.at(given.data_dir)) as link:
        if not given.watch:
            _show(link.ask(GetStatus(), NodeStatus), as_json=given.json)
            return 0
        link.listen()
        while True:
            _redraw(link.ask(GetStatus(), NodeStatus), as_json=given.json)
            shown_at = time.monotonic()
            while time.monotonic() - shown_at < WATCH_SECONDS:
                link.next_event()  # also notices that the node ended


def _show(status: NodeStatus, *, as_json: bool) -> None:
    if as_json:
        print_json(to_plain(status))
    else:
        print(printable(in_words(status, time.time())))


def _redraw(status: NodeStatus, *, as_json: bool) -> None:
    if as_json:
        import json  # noqa: PLC0415

        print(json.dumps(to_plain(status), ensure_ascii=False), flush=True)
        return
    if sys.stdout.isatty():
        sys.stdout.write("\x1b[H\x1b[2J")
    _show(status, as_json=False)
    sys.stdout.write("" if sys.stdout.isatty() else "\n")
    sys.stdout.flush()


def in_words(status: NodeStatus, now: float) -> str:
    """The whole status; `now` in Unix seconds."""
    swarm = status.swarm
    joined = "connected" if swarm.connected else "not connected"
    lines = [
        f"Superbloom {status.version}, process {status.pid}, {status.data_dir}",
        f"Model  {status.model or 'none chosen'}",
        f"Swarm  {swarm.name or 'none'}: {REACH_WORDS[swarm.reach]}, {joined}",
        f"Share  {share_in_words(status.share)}",
    ]
    if swarm.problem:
        lines.insert(3, f"       {swarm.problem}")
    if swarm.reach is Reach.OPEN and (ports := _ports(status)):
        words = "ports" if ports[1:] else "port"
        lines.insert(3, f"       others reach it at {words} {' and '.join(ports)}")
    blocks = _blocks(status)
    for model in _models(status):
        lines += ["", *_model_lines(status, model, blocks.get(model, 0), now)]
    if not swarm.servers:
        lines += ["", "No server is known."]
    return "\n".join(lines)


def share_in_words(share: ShareStatus) -> str:
    """The share in one line."""
    words = SHARE_WORDS[share.state]
    if share.state in (ShareState.SERVING, ShareState.DRAINING) and share.span is not None:
        words += f" blocks {share.span} of {share.model}"
        if share.precision is not None:
            words += f" in {share.precision} on {share.device}"
        words += f", {size_in_words(share.memory_bytes)}, {share.sessions} open sessions"
        words += f", {share.tokens_served} tokens served"
    return f"{words}. {share.reason}" if share.reason else words


def coverage_bar(counts: tuple[int, ...], width: int = BAR_WIDTH) -> str:
    """A bar of the blocks: `.` held by nobody, a digit for the fewest holders in its part."""
    cells = min(width, len(counts))
    bar = ""
    for cell in range(cells):
        start, end = cell * len(counts) // cells, (cell + 1) * len(counts) // cells
        fewest = min(counts[start:end])
        bar += "." if fewest == 0 else str(min(fewest, 9))
    return f"[{bar}]"


def _ports(status: NodeStatus) -> list[str]:
    """The TCP ports of the node and its server: 4001 in /ip4/192.0.2.1/tcp/4001/p2p/ID."""
    swarm = status.swarm
    own = [one.addresses for one in swarm.servers if one.peer == status.share.peer]
    parts = [address.split("/") for group in (swarm.addresses, *own) for address in group]
    return sorted({part[part.index("tcp") + 1] for part in parts if "tcp" in part[:-1]})


def _blocks(status: NodeStatus) -> dict[str, int]:
    blocks = {server.model: server.blocks for server in status.swarm.servers}
    return blocks | {model.id: model.blocks for model in status.models}


def _models(status: NodeStatus) -> list[str]:
    """The models to show: the chosen one first, then what others serve."""
    served = sorted({server.model for server in status.swarm.servers})
    chosen = [status.model] if status.model else []
    return chosen + [model for model in served if model != status.model]


def _model_lines(status: NodeStatus, model: str, blocks: int, now: float) -> list[str]:
    servers = [server for server in status.swarm.servers if server.model == model]
    if blocks == 0:
        return [model]
    counts = coverage(servers, blocks)
    covered = sum(count > 0 for count in counts)
    lines = [f"{model}: {covered} of {blocks} blocks are served", coverage_bar(counts)]
    if servers:
        lines += [_server_table(servers, status, now)]
    return lines


def _server_table(servers: list[ServerInfo], status: NodeStatus, now: float) -> str:
    rows = []
    for server in sorted(servers, key=lambda server: (server.span, server.name, server.peer)):
        seconds = status.swarm.round_trip_seconds.get(server.peer)
        rows.append(
            (
                server.name or server.peer[-8:],
                str(server.span),
                str(server.state),
                str(server.precision),
                server.device,
                f"{1000 * server.step_seconds:.0f} ms",
                f"{1000 * server.waiting_seconds:.0f} ms",
                str(server.sessions),
                f"{server.free_cache_tokens}",
                "-" if seconds is None else f"{1000 * seconds:.0f} ms",
                f"{max(0.0, now - server.announced_at):.0f} s ago",
                "this computer" if server.peer == status.share.peer else "",
            )
        )
    head = (
        "SERVER",
        "BLOCKS",
        "STATE",
        "FORM",
        "DEVICE",
        "STEP",
        "WAIT",
        "SESSIONS",
        "FREE TOKENS",
    )
    return table((*head, "ROUND TRIP", "SEEN", ""), rows)
