"""What `superbloom serve` makes of its command line."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path

import pytest

from superbloom.domain.catalogue import STARTER
from superbloom.domain.errors import (
    InputRejected,
    InviteExpired,
    InviteInvalid,
    ModelDamaged,
    ModelNotHere,
    UnknownModel,
)
from superbloom.domain.invite import Invite, encode_invite
from superbloom.domain.model_card import Precision
from superbloom.domain.settings import Settings, SwarmSettings
from superbloom.domain.span import Span
from superbloom.node.serving.serve_arguments import ServeStart, parser, prepare
from superbloom.node.swarm import SECRET_NAME
from superbloom.storage.fetching import FetchWatch
from superbloom.storage.model_files import ModelFolder
from superbloom.storage.paths import DataFolder
from superbloom.storage.secrets import Secrets
from superbloom.storage.settings_file import save_settings

NEAR = "/ip4/127.0.0.1/tcp/4001/p2p/abc"
FAR = "/ip4/10.1.2.3/tcp/4001/p2p/abc"


@pytest.fixture
def data(tmp_path: Path) -> DataFolder:
    """A data folder with something that passes for the starter."""
    made = DataFolder(tmp_path)
    made.ensure()
    folder = made.models / STARTER
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    ModelFolder(STARTER, folder).seal("test", FetchWatch(lambda *_: None))
    return made


def orders(data: DataFolder, *words: str) -> ServeStart:
    return prepare(parser().parse_args(words), data)


def code(*addresses: str, hours: float = 1.0) -> str:
    expires = time.time() + hours * 3600
    return encode_invite(
        Invite(name="friends", secret=b"s" * 32, addresses=addresses, expires_at=expires)
    )


def test_without_a_word_it_begins_a_swarm_with_the_starter(data: DataFolder) -> None:
    start = orders(data)
    assert start.order.request.model == STARTER
    assert start.order.folder == str(data.models / STARTER)
    assert start.order.request.span is None
    assert start.invites
    assert start.swarm.bootstrap == ()
    assert len(bytes.fromhex(start.swarm.secret)) == 32


def test_what_is_asked_for_is_ordered(data: DataFolder) -> None:
    words = ("--blocks", "3:7", "--memory", "2GB", "--precision", "bf16", "--threads", "3")
    request = orders(data, *words, "--device", "cpu").order.request
    assert request.span == Span(3, 7)
    assert request.memory_bytes == 2 << 30
    assert (request.precision, request.threads, request.device) == (Precision.BF16, 3, "cpu")


@pytest.mark.parametrize(("address", "host"), [(NEAR, "127.0.0.1"), (FAR, "0.0.0.0")])
def test_an_invite_names_swarm_and_reach(data: DataFolder, address: str, host: str) -> None:
    start = orders(data, "--join", code(address), "--port", "4321", "--name", "box")
    assert (start.swarm.name, start.swarm.secret) == ("friends", (b"s" * 32).hex())
    assert start.swarm.bootstrap == (address,)
    assert start.swarm.listen == f"{host}:4321"
    assert start.swarm.display_name == "box"
    assert not start.invites


def test_the_folders_own_swarm_is_taken(data: DataFolder) -> None:
    swarm = SwarmSettings(name="ours", bootstrap=(FAR,))
    save_settings(data.settings_file, replace(Settings(), swarm=swarm))
    Secrets(data, in_file=True).set(SECRET_NAME, "ab" * 32)
    assert orders(data).swarm.bootstrap == (FAR,)
    start = orders(data, "--peer", NEAR)
    assert (start.swarm.name, start.swarm.bootstrap) == ("ours", (NEAR,))


def test_peers_without_a_swarm_are_refused(data: DataFolder) -> None:
    with pytest.raises(InputRejected, match="no swarm"):
        orders(data, "--peer", NEAR)


def test_bad_models_are_told_apart(data: DataFolder) -> None:
    with pytest.raises(UnknownModel, match="nope"):
        orders(data, "--model", "nope")
    with pytest.raises(ModelNotHere, match="not on this computer"):
        orders(data, "--model", "bloom-176b")
    (data.models / STARTER / "config.json").write_text("{} ")
    with pytest.raises(ModelDamaged, match=r"config\.json"):
        orders(data)


@pytest.mark.parametrize("address", ["/x", "/x/p2p/", "/ip4/10.1.2.3/tcp/4001"])
def test_an_invite_with_an_address_that_is_none_is_refused(data: DataFolder, address: str) -> None:
    with pytest.raises(InviteInvalid):
        orders(data, "--join", code(address))


def test_an_empty_invite_begins_no_swarm(data: DataFolder) -> None:
    with pytest.raises(InviteInvalid):
        orders(data, "--join", "")


def test_an_old_invite_is_refused(data: DataFolder) -> None:
    with pytest.raises(InviteExpired):
        orders(data, "--join", code(NEAR, hours=-1))


@pytest.mark.parametrize(
    "words",
    [
        ("--blocks", "5"),
        ("--blocks", "7:3"),
        ("--memory", "lots"),
        ("--precision", "fp1"),
        ("--threads", "0"),
        ("--port", "x"),
        ("--port", "99999"),
        ("--peer", "foo"),
        ("--peer", "/ip4/10.1.2.3/tcp/4001"),
        ("--data-dir", ""),
    ],
)
def test_nonsense_is_a_usage_error(
    data: DataFolder, words: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        orders(data, *words)
    assert ended.value.code == 2
    assert words[0] in capsys.readouterr().err
