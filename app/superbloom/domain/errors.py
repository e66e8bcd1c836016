"""Every failure the program reports: a sentence for the user and a next step.

SuperbloomError
├── InputRejected           a command, option or value makes no sense
├── ModelError
│   ├── UnknownModel        no such model in the catalogue or on disk
│   ├── ModelNotHere        known, but its files are not on this computer
│   ├── ModelDamaged        a file is missing, cut short or has the wrong hash
│   ├── ModelUnsupported    the family fails its self-check or cannot be loaded
│   └── DownloadFailed      a source cannot be reached or broke off
├── DiskFull                a write failed for lack of space
├── StorageFailed           a file of ours cannot be read or written
├── NoDisplay               no window can be opened on this computer
├── SecretsUnavailable      there is no keyring to keep secrets in
├── SwarmError
│   ├── InviteInvalid       the code is not one of ours, or was mistyped
│   ├── InviteExpired       the code was good once
│   ├── NoPeersReachable    no bootstrap address answers
│   ├── ClocksDiffer        this computer's clock is off by more than the swarm bears
│   ├── PortTaken           something else listens on the port
│   ├── NetworkFailed       the network daemon did not start or died
│   └── PeerLost            a peer went away, fell silent or refused the stream
├── SessionError
│   ├── BlocksMissing       no chain of servers covers every block
│   ├── SessionRefused      a server has no room, is draining or does not know us
│   ├── ContextFull         the text does not fit the model's context
│   └── ProtocolViolation   a peer sent what the protocol forbids
├── ServerError
│   ├── BudgetTooSmall      not one block fits into the memory budget
│   └── ServerCrashed       the server process ended unasked
└── NodeError
    ├── NodeRunning         another node owns the data folder
    ├── NodeInUse           others need the node that was asked to end
    ├── NodeUnreachable     no node answers, or it broke off
    └── ControlRefused      the control wire got a wrong token or a malformed message
        └── OtherVersion    the running node speaks another version of the wire
"""

from __future__ import annotations

from typing import ClassVar


class SuperbloomError(Exception):
    """A failure in words: `message` says what happened, `next_step` what the user can do."""

    code: ClassVar[str] = "error"
    default_next_step: ClassVar[str] = "Look at the log for details and try again."

    def __init__(self, message: str, next_step: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.next_step = self.default_next_step if next_step is None else next_step

    def __str__(self) -> str:
        return f"{self.message} {self.next_step}".strip()


class InputRejected(SuperbloomError):
    code = "input_rejected"
    default_next_step = "Correct it and try again."


class ModelError(SuperbloomError):
    code = "model_error"


class UnknownModel(ModelError):
    code = "unknown_model"
    default_next_step = "See `superbloom model list` for the models there are."


class ModelNotHere(ModelError):
    code = "model_not_here"
    default_next_step = "Fetch it with `superbloom model fetch`."


class ModelDamaged(ModelError):
    code = "model_damaged"
    default_next_step = "Run `superbloom model verify`, then `superbloom model fetch` to mend it."


class ModelUnsupported(ModelError):
    code = "model_unsupported"
    default_next_step = "Choose another model."


class DownloadFailed(ModelError):
    code = "download_failed"
    default_next_step = "Check the connection and fetch again: what is here is kept."


class DiskFull(SuperbloomError):
    code = "disk_full"
    default_next_step = "Free some space, or choose another folder for models, and try again."


class StorageFailed(SuperbloomError):
    code = "storage_failed"
    default_next_step = "Check the folder's permissions, or choose another one with --data-dir."


class SecretsUnavailable(SuperbloomError):
    code = "secrets_unavailable"
    default_next_step = (
        "Install or unlock the system's keyring, or agree with --keep-in-file: "
        "secrets are then kept in a file that only you can read."
    )


class NoDisplay(SuperbloomError):
    code = "no_display"
    default_next_step = "Chat in the terminal with `superbloom chat`."


class SwarmError(SuperbloomError):
    code = "swarm_error"


class InviteInvalid(SwarmError):
    code = "invite_invalid"
    default_next_step = "Copy the whole code again, or ask for a new one."


class InviteExpired(SwarmError):
    code = "invite_expired"
    default_next_step = "Ask for a new one."


class NoPeersReachable(SwarmError):
    code = "no_peers_reachable"
    default_next_step = "Check that the inviting computer is on and reachable, then try again."


class ClocksDiffer(SwarmError):
    code = "clocks_differ"
    default_next_step = "Set this computer's clock automatically, then try again."


class PortTaken(SwarmError):
    code = "port_taken"
    default_next_step = "End the other program or choose another port with --port."


class NetworkFailed(SwarmError):
    code = "network_failed"


class PeerLost(SwarmError):
    """A peer went away; `peer` is its id."""

    code = "peer_lost"
    default_next_step = "The program looks for a replacement by itself."

    def __init__(self, message: str, next_step: str | None = None, *, peer: str = "") -> None:
        super().__init__(message, next_step)
        self.peer = peer


class SessionError(SuperbloomError):
    code = "session_error"


class BlocksMissing(SessionError):
    code = "blocks_missing"
    default_next_step = "Share this computer, or wait until a server with these blocks comes."


class SessionRefused(SessionError):
    code = "session_refused"
    default_next_step = "Try again in a moment, or ask for a shorter answer."


class ContextFull(SessionError):
    code = "context_full"
    default_next_step = "Shorten the text or begin a new conversation."


class ProtocolViolation(SessionError):
    code = "protocol_violation"
    default_next_step = "The other computer may run another version; both should update."


class ServerError(SuperbloomError):
    code = "server_error"


class BudgetTooSmall(ServerError):
    code = "budget_too_small"
    default_next_step = "Raise the memory budget or choose a smaller model or precision."


class ServerCrashed(ServerError):
    code = "server_crashed"
    default_next_step = "It is started again by itself; the log has the reason."


class NodeError(SuperbloomError):
    code = "node_error"


class NodeRunning(NodeError):
    code = "node_running"
    default_next_step = "Use that one, or choose another folder with --data-dir."


class NodeInUse(NodeError):
    code = "node_in_use"
    default_next_step = "End it with `superbloom stop` when nobody needs it any more."


class NodeUnreachable(NodeError):
    code = "node_unreachable"
    default_next_step = "Start it with `superbloom node`."


class ControlRefused(NodeError):
    code = "control_refused"
    default_next_step = "Start the program again."


class OtherVersion(ControlRefused):
    code = "other_version"
    default_next_step = "End the running one and start the program again."


def error_classes() -> dict[str, type[SuperbloomError]]:
    """Every error class by its wire code."""
    found: dict[str, type[SuperbloomError]] = {}
    pending: list[type[SuperbloomError]] = [SuperbloomError]
    while pending:
        current = pending.pop()
        found[current.code] = current
        pending.extend(current.__subclasses__())
    return found


def error_from_code(code: str, message: str, next_step: str) -> SuperbloomError:
    """Rebuild an error that crossed a wire; an unknown code becomes the root error."""
    return error_classes().get(code, SuperbloomError)(message, next_step)
