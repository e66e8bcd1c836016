"""The supervisor against a small server process that misbehaves in every way we know."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import psutil
import pytest

from superbloom.domain.sharing import ShareRequest, ShareState, ShareStatus
from superbloom.node.serving import server_child
from superbloom.node.serving.server_wire import EnterSwarm, StartServing
from superbloom.node.serving.supervisor import Patience, Supervisor, server_command

FAKE = Path(__file__).parent.with_name("fake_server.py")
APP = Path(__file__).parents[3] / "app"

ORDER = StartServing(request=ShareRequest(model="tiny"), folder="/nowhere")
SWARM = EnterSwarm(
    name="test", secret="00", bootstrap=(), listen="127.0.0.1:0", display_name="tester"
)


class Watch:
    """Hears the supervisor and waits for states."""

    def __init__(self) -> None:
        self.seen: list[ShareStatus] = []
        self._changed = asyncio.Event()

    def __call__(self, status: ShareStatus) -> None:
        self.seen.append(status)
        self._changed.set()

    async def until(self, holds: Callable[[ShareStatus], bool]) -> ShareStatus:
        async with asyncio.timeout(30):
            while True:
                for status in self.seen:
                    if holds(status):
                        return status
                self._changed.clear()
                await self._changed.wait()

    async def state(self, state: ShareState) -> ShareStatus:
        return await self.until(lambda status: status.state is state)

    def states(self) -> list[ShareState]:
        return [status.state for status in self.seen]


Make = Callable[..., tuple[Supervisor, Watch]]


@pytest.fixture
async def make(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Make]:
    monkeypatch.setenv("PYTHONPATH", str(APP))
    made: list[Supervisor] = []

    def build(mode: str, **patience: object) -> tuple[Supervisor, Watch]:
        watch = Watch()
        given: dict[str, object] = {"backoff": (0.01, 0.01), "drain": 10.0, **patience}
        supervisor = Supervisor(
            (sys.executable, str(FAKE), mode),
            watch,
            patience=Patience(**given),  # type: ignore[arg-type]
        )
        made.append(supervisor)
        return supervisor, watch

    yield build
    for supervisor in made:
        await supervisor.close()


async def gone(pid: int) -> None:
    """Wait until a process that is not our child is gone or waits for its parent."""
    try:
        await asyncio.to_thread(psutil.Process(pid).wait, 10)
    except psutil.NoSuchProcess:
        return


async def test_a_server_is_started_watched_and_ended(make: Make) -> None:
    supervisor, watch = make("good")
    await supervisor.start(ORDER)
    loading = await watch.state(ShareState.LOADING)
    assert loading.reason == "Loading blocks 0-3: 50 %."
    await supervisor.enter_swarm(SWARM)
    busy = await watch.until(lambda status: status.tokens_served == 7)
    assert (busy.state, busy.sessions, busy.peer) == (ShareState.SERVING, 1, "test")
    assert busy.memory_bytes == 1000
    pid = supervisor.server_pid
    assert pid is not None
    stopped = await supervisor.stop()
    assert stopped == ShareStatus(state=ShareState.OFF, wanted=False)
    assert not psutil.pid_exists(pid)
    assert watch.states()[0] is ShareState.STARTING


async def test_the_swarm_is_told_to_every_later_server(make: Make) -> None:
    supervisor, watch = make("good")
    await supervisor.enter_swarm(SWARM)
    await supervisor.start(ORDER)
    await watch.state(ShareState.SERVING)
    first = supervisor.server_pid
    assert first is not None
    psutil.Process(first).kill()
    restarting = await watch.state(ShareState.RESTARTING)
    assert "SIGKILL" in restarting.reason
    watch.seen.clear()
    await watch.state(ShareState.SERVING)
    assert supervisor.server_pid != first


async def test_draining_lets_the_server_leave_by_itself(make: Make) -> None:
    supervisor, watch = make("good")
    await supervisor.enter_swarm(SWARM)
    await supervisor.start(ORDER)
    await watch.state(ShareState.SERVING)
    await supervisor.stop(drain=True)
    assert watch.states()[-2:] == [ShareState.DRAINING, ShareState.OFF]
    assert ShareState.RESTARTING not in watch.states()


async def test_sharing_again_during_a_drain_wins(make: Make) -> None:
    supervisor, watch = make("good")
    await supervisor.enter_swarm(SWARM)
    await supervisor.start(ORDER)
    await watch.state(ShareState.SERVING)
    stopping = asyncio.create_task(supervisor.stop(drain=True))
    await watch.state(ShareState.DRAINING)
    watch.seen.clear()
    await supervisor.start(ORDER)
    await stopping
    await watch.state(ShareState.SERVING)
    assert supervisor.status.wanted


async def test_what_is_no_report_is_ignored(make: Make) -> None:
    supervisor, watch = make("garbage")
    await supervisor.enter_swarm(SWARM)
    await supervisor.start(ORDER)
    await watch.state(ShareState.SERVING)
    assert ShareState.RESTARTING not in watch.states()


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("crash", "failed with code 3: the last thing I saw"),
        ("segfault", "ended by SIGSEGV (a fault in native code)"),
        ("killed", "ended by SIGKILL, most likely by the system for lack of memory"),
    ],
)
async def test_quick_crashes_are_explained_and_end_in_giving_up(
    make: Make, mode: str, words: str
) -> None:
    supervisor, watch = make(mode)
    await supervisor.start(ORDER)
    failed = await watch.state(ShareState.FAILED)
    assert words in failed.reason
    assert "Turn sharing on again" in failed.reason
    assert failed.wanted
    assert watch.states().count(ShareState.RESTARTING) == 2
    assert supervisor.server_pid is None


async def test_asking_again_after_giving_up_starts_afresh(make: Make) -> None:
    supervisor, watch = make("crash")
    await supervisor.start(ORDER)
    await watch.state(ShareState.FAILED)
    watch.seen.clear()
    await supervisor.start(ORDER)
    await watch.state(ShareState.FAILED)
    assert watch.states().count(ShareState.RESTARTING) == 2


async def test_long_lived_servers_do_not_use_up_the_patience(make: Make) -> None:
    supervisor, watch = make("crash", quick=0.0)
    await supervisor.start(ORDER)
    async with asyncio.timeout(30):
        while watch.states().count(ShareState.RESTARTING) < 4:
            await watch.until(lambda status: status.state is ShareState.RESTARTING)
            await asyncio.sleep(0.02)
    assert ShareState.FAILED not in watch.states()


async def test_an_error_that_a_restart_does_not_cure_ends_it(make: Make) -> None:
    supervisor, watch = make("hopeless")
    await supervisor.start(ORDER)
    failed = await watch.state(ShareState.FAILED)
    assert failed.reason.startswith("Not one block fits. Raise the memory budget")
    assert ShareState.RESTARTING not in watch.states()


async def test_a_silent_server_is_replaced(make: Make) -> None:
    supervisor, watch = make("silent", silent_after=0.5)
    await supervisor.start(ORDER)
    restarting = await watch.state(ShareState.RESTARTING)
    assert "silent for 0.5 s" in restarting.reason
    await supervisor.close()
    assert supervisor.server_pid is None


async def test_a_stubborn_server_and_its_children_are_killed(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_child, "POLITE_SECONDS", 0.2)
    monkeypatch.setattr(server_child, "FIRM_SECONDS", 0.2)
    supervisor, watch = make("stubborn")
    await supervisor.start(ORDER)
    grandchild = (await watch.until(lambda status: status.tokens_served > 0)).tokens_served
    await supervisor.stop()
    await gone(grandchild)


async def test_what_a_crashed_server_left_running_is_ended(make: Make) -> None:
    supervisor, watch = make("litters", backoff=(60.0,))
    await supervisor.start(ORDER)
    grandchild = (await watch.until(lambda status: status.tokens_served > 0)).tokens_served
    await watch.state(ShareState.RESTARTING)
    await gone(grandchild)


def test_modules_of_the_current_folder_are_kept_out() -> None:
    assert server_command("/d")[:4] == (sys.executable, "-P", "-m", "superbloom")


async def test_a_command_that_cannot_be_started_is_explained() -> None:
    watch = Watch()
    supervisor = Supervisor(("/no/such/program",), watch, patience=Patience(backoff=()))
    await supervisor.start(ORDER)
    failed = await watch.state(ShareState.FAILED)
    assert "could not be started: No such file or directory" in failed.reason


async def test_after_the_end_no_order_starts_a_server(make: Make) -> None:
    supervisor, _ = make("good")
    await supervisor.close()
    await supervisor.start(ORDER)
    await supervisor.enter_swarm(SWARM)
    await asyncio.sleep(0.05)
    assert supervisor.server_pid is None
