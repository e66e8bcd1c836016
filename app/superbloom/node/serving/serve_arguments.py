"""The command line of `superbloom serve`: what to serve, and in which swarm."""

from __future__ import annotations

import argparse
import secrets as randomness
import time
from dataclasses import dataclass
from pathlib import Path

from superbloom.domain.budget import parse_size
from superbloom.domain.catalogue import STARTER, unknown_model
from superbloom.domain.errors import (
    InputRejected,
    ModelDamaged,
    ModelNotHere,
    SecretsUnavailable,
)
from superbloom.domain.invite import decode_invite
from superbloom.domain.model_card import Precision
from superbloom.domain.settings import Settings
from superbloom.domain.sharing import ShareRequest
from superbloom.domain.span import Span
from superbloom.node.invite_addresses import LOOPBACK, host_of
from superbloom.node.models.service import shipped_catalogue
from superbloom.node.serving.server_wire import EnterSwarm, StartServing
from superbloom.node.swarm import SECRET_NAME
from superbloom.node.typed_values import data_folder, peer, port, positive, typed
from superbloom.storage.manifest import damaged_files
from superbloom.storage.model_files import FolderState
from superbloom.storage.model_places import ModelPlaces
from superbloom.storage.paths import DataFolder
from superbloom.storage.secrets import Secrets
from superbloom.storage.settings_file import load_settings


@dataclass(frozen=True, slots=True)
class ServeStart:
    """A server's orders from the command line."""

    order: StartServing
    swarm: EnterSwarm
    invites: bool
    """True where others join this server's own swarm by a code that is printed."""


@dataclass(frozen=True, slots=True)
class _Swarm:
    """A swarm and whom to enter it by; without `bootstrap` it begins here."""

    name: str
    secret: str
    bootstrap: tuple[str, ...] = ()


def prepare(given: argparse.Namespace, data: DataFolder) -> ServeStart:
    """The orders that `parser` has read.

    Raises InputRejected, UnknownModel, ModelNotHere, ModelDamaged, InviteInvalid, InviteExpired.
    """
    settings, _problem = load_settings(data.settings_file)
    model = given.model or settings.model or STARTER
    request = ShareRequest(
        model=model,
        span=given.blocks,
        memory_bytes=given.memory,
        precision=given.precision,
        device=given.device,
        threads=given.threads,
    )
    folder = given.folder.expanduser().absolute() if given.folder else None
    swarm = _swarm(given, data, settings)
    near = bool(swarm.bootstrap) and all(host_of(a) in LOOPBACK for a in swarm.bootstrap)
    host = given.host or ("127.0.0.1" if near else "0.0.0.0")
    return ServeStart(
        StartServing(request=request, folder=str(folder or _model_folder(data, settings, model))),
        EnterSwarm(
            name=swarm.name,
            secret=swarm.secret,
            bootstrap=swarm.bootstrap,
            listen=f"{host}:{given.port}",
            display_name=given.name or settings.display_name,
        ),
        invites=not swarm.bootstrap,
    )


def _model_folder(data: DataFolder, settings: Settings, model: str) -> Path:
    root = Path(settings.models_folder).expanduser() if settings.models_folder else data.models
    places = ModelPlaces(root)
    found = places.folder(model)
    state = found.state()
    if state is FolderState.ABSENT:
        known = [card.id for card in shipped_catalogue()]
        if model not in known:
            raise unknown_model(model, (*known, *places.models()))
        raise ModelNotHere(
            f"The files of {model} are not on this computer.",
            f"Fetch them with `superbloom model fetch {model}`.",
        )
    if state is FolderState.DAMAGED:
        raise ModelDamaged(
            f"Files of {model} are damaged: {', '.join(damaged_files(found.path)[:3])}.",
            f"Mend it with `superbloom model fetch {model}`.",
        )
    return found.path


def _swarm(given: argparse.Namespace, data: DataFolder, settings: Settings) -> _Swarm:
    """The invite's swarm, the data folder's, or a new one."""
    if given.join is not None:
        invite = decode_invite(given.join, time.time())
        return _Swarm(invite.name, invite.secret.hex(), invite.addresses)
    try:
        secret = Secrets(data, in_file=not data.is_default).get(SECRET_NAME)
    except SecretsUnavailable:
        secret = None  # none is kept here; one that begins now lasts as long as this server
    if settings.swarm.name and secret:
        bootstrap = tuple(given.peer) or settings.swarm.bootstrap
        return _Swarm(settings.swarm.name, secret, bootstrap)
    if given.peer:
        raise InputRejected(
            "This data folder is in no swarm, so peers would not take this server in.",
            "Join with --join CODE.",
        )
    return _Swarm(f"swarm-{randomness.token_hex(3)}", randomness.token_hex(32))


def parser() -> argparse.ArgumentParser:
    arguments = argparse.ArgumentParser(
        prog="superbloom serve",
        description="Serve blocks of a model from this terminal, without a node. Joins the swarm "
        "of an invite, or else begins one and prints an invite for others.",
    )
    arguments.add_argument("--model", default="", metavar="MODEL", help="which model (the starter)")
    arguments.add_argument("--folder", type=Path, metavar="DIR", help="the model's folder")
    arguments.add_argument("--join", metavar="CODE", help="join the swarm of this invite")
    arguments.add_argument(
        "--peer",
        type=peer,
        action="append",
        default=[],
        metavar="ADDR",
        help="join this folder's swarm by this peer",
    )
    arguments.add_argument(
        "--blocks", type=typed(Span.parse), metavar="A:B", help="blocks A to B-1; else it chooses"
    )
    arguments.add_argument(
        "--memory", type=typed(parse_size), metavar="SIZE", help="at most this much, as 4GB"
    )
    arguments.add_argument(
        "--precision",
        type=typed(Precision.parse),
        metavar="NAME",
        help=f"hold the weights in {', '.join(Precision)}",
    )
    arguments.add_argument("--device", metavar="NAME", help="cpu, cuda, cuda:1 or mps")
    arguments.add_argument("--threads", type=positive, metavar="N", help="compute threads")
    arguments.add_argument("--host", default="", metavar="IP", help="listen on this address")
    arguments.add_argument(
        "--port", type=port, default=0, metavar="PORT", help="listen on this port"
    )
    arguments.add_argument("--name", default="", metavar="NAME", help="what others see")
    arguments.add_argument(
        "--data-dir", type=data_folder, metavar="DIR", help="keep everything in this folder"
    )
    arguments.add_argument(
        "--json", action="store_true", help="print the invite as JSON and the rest on stderr"
    )
    arguments.add_argument("--verbose", action="store_true", help="print the log")
    return arguments
