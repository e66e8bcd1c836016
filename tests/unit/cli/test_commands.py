"""The other commands on a scripted node: what they print, ask and return."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from scripted_node import INFO, SHARING, STATUS, ScriptedNode, server_info

from superbloom import __version__
from superbloom.__main__ import split_word
from superbloom.cli import node_access
from superbloom.cli.arguments import ELSEWHERE, _parser, _words, parse
from superbloom.cli.main import main
from superbloom.cli.status import coverage_bar, in_words
from superbloom.control.messages import (
    CancelFetch,
    ChangeSettings,
    CreateInvite,
    FetchModel,
    GetStatus,
    ImportModel,
    JoinSwarm,
    LeaveSwarm,
    ModelState,
    NodeStatus,
    Notice,
    NoticeLevel,
    RemoveModel,
    StartShare,
    StopNode,
    StopShare,
    UseModel,
    VerifyModel,
)
from superbloom.domain.model_card import Precision
from superbloom.domain.record import from_plain
from superbloom.domain.sharing import ShareRequest, ShareState, ShareStatus
from superbloom.domain.span import Span
from superbloom.domain.swarm_map import ServerState
from superbloom.machine.lock import FolderLock

Start = Callable[..., "subprocess.Popen[str]"]


# --- status -----------------------------------------------------------------------------------


def test_status_in_words(node: ScriptedNode, run) -> None:
    ran = run("status")
    assert ran.code == 0
    for words in (
        "ours: only this computer, connected",
        "Sharing blocks 0-1 of tiny in bf16 on cpu",
        "tiny: 3 of 4 blocks are served",
        "[121.]",
        "25 ms",
        "this computer",
    ):
        assert words in ran.out


def test_status_as_json_is_the_whole_status(node: ScriptedNode, run) -> None:
    assert from_plain(NodeStatus, run("status", "--json").json) == STATUS


def test_a_draining_server_covers_nothing() -> None:
    draining = server_info("ada", Span(0, 4), ServerState.DRAINING)
    status = replace(STATUS, swarm=replace(STATUS.swarm, servers=(draining,)))
    assert "tiny: 0 of 4 blocks are served\n[....]" in in_words(status, 1000.0)


def test_nobody_is_there() -> None:
    swarm = replace(STATUS.swarm, servers=(), connected=False, problem="The port is taken.")
    said = in_words(replace(STATUS, swarm=swarm, models=(), model=""), 1000.0)
    assert "No server is known." in said
    assert "The port is taken." in said


@pytest.mark.parametrize(
    ("counts", "bar"),
    [((1, 0, 12), "[1.9]"), ((1,) * 120, f"[{'1' * 60}]"), ((1,) * 119 + (0,), f"[{'1' * 59}.]")],
)
def test_the_bar_never_hides_a_gap(counts: tuple[int, ...], bar: str) -> None:
    assert coverage_bar(counts) == bar


def test_watching_redraws_until_ctrl_c(node: ScriptedNode, start: Start) -> None:
    watch = start("status", "--watch")
    deadline = time.monotonic() + 60
    while sum(isinstance(one, GetStatus) for one in node.asked) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    watch.send_signal(signal.SIGINT)
    out, err = watch.communicate(timeout=60)
    assert (watch.returncode, err) == (130, "")
    assert "tiny: 3 of 4" in out


@pytest.mark.parametrize("words", [("status",), ("share", "off"), ("share", "status")])
def test_without_a_node(run, words: tuple[str, ...]) -> None:
    ran = run(*words)
    assert ran.code == 1
    assert "Start it with `superbloom node`." in ran.err


# --- share ------------------------------------------------------------------------------------


def test_share_on_waits_until_it_serves(node: ScriptedNode, run) -> None:
    loading = ShareStatus(state=ShareState.LOADING, wanted=True, model="tiny")
    node.share_states = (loading, SHARING)
    ran = run(
        *("share", "on", "--blocks", "0:2", "--memory", "4GB", "--precision", "int8"),
        *("--device", "cpu", "--threads", "2"),
    )
    assert (ran.code, ran.out.split(" in ")[0]) == (0, "Sharing blocks 0-1 of tiny")
    assert node.asked_for(StartShare).request == ShareRequest(
        model="tiny", span=Span(0, 2), memory_bytes=4 * 1024**3, precision=Precision.INT8,
        device="cpu", threads=2,
    )  # fmt: skip


@pytest.mark.parametrize("state", [ShareState.SERVING, ShareState.OFF, ShareState.FAILED])
def test_news_of_the_share_before_does_not_count(
    node: ScriptedNode, run, state: ShareState
) -> None:
    node.stale_share_states = (replace(SHARING, state=state, span=Span(3, 4)),)
    assert "blocks 0-1" in run("share", "on").out


def test_share_on_says_why_it_failed(node: ScriptedNode, run) -> None:
    node.share_states = (
        ShareStatus(state=ShareState.FAILED, wanted=True, reason="No block fits."),
    )
    ran = run("share", "on")
    assert ran.code == 1
    assert ran.err.startswith("superbloom: No block fits.\n  ")


def test_share_off(node: ScriptedNode, run) -> None:
    ran = run("share", "off", "--drain", "--json")
    assert ran.json["state"] == "off"
    assert node.asked_for(StopShare).drain


def test_share_status(node: ScriptedNode, run) -> None:
    assert run("share", "status", "--json").json["span"] == {"start": 0, "end": 2}


@pytest.mark.parametrize(
    "words",
    [
        ("share",),
        ("share", "sideways"),
        ("share", "on", "--blocks", "2"),
        ("share", "on", "--blocks", "3:3"),
        ("share", "on", "--blocks", "a:b"),
        ("share", "on", "--memory", "much"),
        ("share", "on", "--memory", "-4GB"),
        ("share", "on", "--memory", "infGB"),
        ("share", "on", "--memory", "nan"),
        ("share", "on", "--precision", "fp1"),
        ("share", "on", "--threads", "0"),
        ("invite", "--hours", "0"),
        ("invite", "--hours", "soon"),
        ("invite", "--hours", "nan"),
        ("join",),
        ("model",),
        ("model", "fetch"),
        ("model", "dance"),
        ("frobnicate",),
        ("--nonsense",),
    ],
)
def test_wrong_usage(run, words: tuple[str, ...]) -> None:
    ran = run(*words)
    assert ran.code == 2
    sentence, step = ran.err.splitlines()
    assert sentence.startswith("superbloom: ")
    assert step.startswith("  See `superbloom")


def test_a_precision_that_is_none_is_answered_with_those_there_are(run) -> None:
    assert "not one of fp32, bf16, fp16, int8, nf4" in run("share", "on", "--precision", "8").err


# --- swarm ------------------------------------------------------------------------------------


def test_invite_prints_the_code_alone(node: ScriptedNode, run) -> None:
    ran = run("invite", "--hours", "2", "--address", "example.org")
    assert (ran.code, ran.out) == (0, "superbloom:code\n")
    assert "Good until" in ran.err
    assert node.asked_for(CreateInvite) == CreateInvite(hours=2.0, address="example.org")
    assert run("invite", "--json").json == {"code": "superbloom:code", "expires_at": 1e9}


def test_join_forgives_a_broken_line(node: ScriptedNode, run) -> None:
    ran = run("join", " superbloom:\n  good ")
    assert (ran.code, ran.out) == (0, "Joined the swarm theirs.\n")
    assert node.asked_for(JoinSwarm).code == "superbloom:good"


def test_join_with_a_wrong_code(node: ScriptedNode, run) -> None:
    ran = run("join", "nonsense")
    assert (ran.code, ran.out) == (1, "")
    assert ran.err.startswith("superbloom: This is no invite code.\n  ")


def test_leave(node: ScriptedNode, run) -> None:
    assert run("leave").code == 0
    node.asked_for(LeaveSwarm)


# --- models -----------------------------------------------------------------------------------


def test_the_list_of_models(node: ScriptedNode, run) -> None:
    ran = run("model", "list")
    assert ran.out.splitlines()[1].split() == [
        "tiny", "here", "300", "MB", "4", "200", "MB", "100", "MB", "-", "2048", "MIT", "in", "use"
    ]  # fmt: skip
    assert run("model", "list", "--json").json[0]["id"] == "tiny"


def test_fetch_shows_how_far_it_is(node: ScriptedNode, run) -> None:
    ran = run("model", "fetch", "tiny", "--blocks", "1:3", "--folder", "/models")
    assert (ran.code, ran.out) == (0, "tiny: here, 300 MB in /models/tiny\n")
    assert "Fetching: 0 kB of 100 MB (0 %)" in ran.err
    assert node.asked_for(FetchModel) == FetchModel(
        model="tiny", folder="/models", first_block=1, end_block=3
    )


def test_a_fetch_that_fails(node: ScriptedNode, run) -> None:
    node.fetch_error = ("The disk is full.", "Free some space.")
    ran = run("model", "fetch", "tiny")
    assert ran.code == 1
    assert ran.err.endswith("superbloom: The disk is full.\n  Free some space.\n")


def test_an_unknown_model(node: ScriptedNode, run) -> None:
    assert run("model", "fetch", "none").code == 1


def test_ctrl_c_stops_a_fetch(node: ScriptedNode, start: Start) -> None:
    node.waits = True
    fetch = start("model", "fetch", "tiny")
    assert node.answering.wait(60)
    fetch.send_signal(signal.SIGINT)
    _, err = fetch.communicate(timeout=60)
    assert fetch.returncode == 130
    assert "Traceback" not in err
    assert node.asked_for(CancelFetch).model == "tiny"


def test_import_gives_the_whole_path(
    node: ScriptedNode, run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run("model", "import", "m.gguf", "--id", "mine").code == 0
    assert node.asked_for(ImportModel) == ImportModel(path=str(tmp_path / "m.gguf"), id="mine")


def test_verify(node: ScriptedNode, run) -> None:
    assert run("model", "verify", "tiny").code == 0
    assert node.asked_for(VerifyModel).model == "tiny"
    node.status = replace(STATUS, models=(replace(INFO, state=ModelState.DAMAGED),))
    ran = run("model", "verify", "tiny")
    assert ran.code == 1
    assert "superbloom model fetch tiny" in ran.err


def test_remove_use_and_cancel(node: ScriptedNode, run) -> None:
    assert run("model", "remove", "tiny").code == 0
    assert run("model", "use", "tiny").code == 0
    assert run("model", "cancel", "tiny").code == 0
    assert node.asked_for(RemoveModel).model == "tiny"
    assert node.asked_for(UseModel).model == "tiny"
    assert node.asked_for(CancelFetch).model == "tiny"


@pytest.mark.parametrize(("word", "said"), [("on", "guesses ahead"), ("off", "No small model")])
def test_guess(node: ScriptedNode, run, word: str, said: str) -> None:
    ran = run("model", "guess", word)
    assert (ran.code, node.asked_for(ChangeSettings).guess_ahead) == (0, word == "on")
    assert said in ran.out


# --- the program ------------------------------------------------------------------------------


def test_stop_without_a_node_is_done(run) -> None:
    ran = run("stop")
    assert (ran.code, ran.out) == (0, "No node is running.\n")


def test_stop_does_not_overlook_a_node_that_is_silent(
    run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(node_access, "SILENT_SECONDS", 0.2)
    with FolderLock.acquire(tmp_path / "node.lock"):
        ran = run("stop")
    assert (ran.code, ran.out) == (1, "")
    assert f"process {os.getpid()}" in ran.err


def test_what_the_node_has_to_say_is_said_once_events_come(
    node: ScriptedNode, run, capsys: pytest.CaptureFixture[str]
) -> None:
    warning = Notice(level=NoticeLevel.WARNING, message="It was damaged\x1b[2J.", next_step="Look.")
    node.news = (warning, Notice(level=NoticeLevel.INFO, message="All is well."))
    ran = run("chat", "--once", "Hi")
    assert ran.code == 0
    assert "superbloom: It was damaged[2J.\n  Look.\n" in ran.err
    assert "All is well" not in ran.err


def test_stop_waits_until_the_folder_is_free(
    node: ScriptedNode, start: Start, tmp_path: Path
) -> None:
    lock = FolderLock.acquire(tmp_path / "node.lock")
    stop = start("stop")
    deadline = time.monotonic() + 60
    while not any(isinstance(one, StopNode) for one in node.asked):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    with pytest.raises(subprocess.TimeoutExpired):
        stop.wait(0.3)
    lock.release()
    out, _ = stop.communicate(timeout=60)
    assert (stop.returncode, out) == (0, "The node has ended.\n")


def test_the_version(run) -> None:
    assert run("--version").out == f"superbloom {__version__}\n"


def test_the_help_names_every_word(run) -> None:
    ran = run("--help")
    words = (
        "window", "node", "serve", "chat", "status", "share", "invite", "join", "leave", "model",
        "stop",
    )  # fmt: skip
    lines = [line.split() for line in ran.out.splitlines()]
    assert all(any(line[:1] == [word] and len(line) > 1 for line in lines) for word in words)


def test_a_mistyped_word_gets_a_hint(run) -> None:
    assert "did you mean 'status'?" in run("statsu").err


@pytest.mark.parametrize("verb", ["remove", "cancel"])
def test_what_was_done_to_a_model_as_json(node: ScriptedNode, run, verb: str) -> None:
    done = {"remove": "removed", "cancel": "cancelled"}[verb]
    assert run("model", verb, "tiny", "--json").json == {"model": "tiny", "done": done}


COMMANDS = (
    "chat", "status", "stop", "invite", "join CODE", "leave", "share on", "share off",
    "share status", "model list", "model fetch M", "model import P", "model verify M",
    "model remove M", "model use M", "model cancel M", "model guess on",
)  # fmt: skip


@pytest.mark.parametrize("line", COMMANDS)
def test_the_folder_may_stand_anywhere(line: str, tmp_path: Path) -> None:
    words = line.split()
    folder = ["--data-dir", str(tmp_path)]
    word, rest = split_word([*folder, *words])
    assert parse([word, *rest]).data_dir == str(tmp_path)
    for at in range(len(words) + 1):
        assert parse([*words[:at], *folder, *words[at:]]).data_dir == str(tmp_path)


def test_every_command_is_among_these() -> None:
    assert {line.split()[0] for line in COMMANDS} | set(ELSEWHERE) == set(_words(_parser()))


@pytest.mark.parametrize("folder", ["", " ", "~nobody-of-this-name/x"])
@pytest.mark.parametrize("line", ["stop", "model list"])
def test_a_folder_that_is_none_is_wrong_usage(
    line: str, folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*line.split(), "--data-dir", folder])
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith("superbloom: Argument --data-dir: T")


def test_the_folder_may_stand_in_front(node: ScriptedNode, start: Start, tmp_path: Path) -> None:
    status = start("--data-dir", str(tmp_path), "status", "--json")
    out, err = status.communicate(timeout=60)
    assert (status.returncode, err) == (0, "")
    assert '"ours"' in out
