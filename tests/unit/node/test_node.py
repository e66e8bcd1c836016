"""A whole node in this process: real control wire and store, a network in memory, a fake server."""

from __future__ import annotations

import asyncio
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TypeVar

import psutil
import pytest

from superbloom.control.address import read_address
from superbloom.control.client import ControlClient
from superbloom.control.messages import (
    Answering,
    CancelFetch,
    ChangeSettings,
    ChatFinished,
    ChatNotice,
    ConversationList,
    CreateInvite,
    DeleteConversation,
    Done,
    Event,
    FetchModel,
    GetStatus,
    GetTranscript,
    ImportModel,
    Invitation,
    JoinSwarm,
    LeaveSwarm,
    ListConversations,
    ModelInfo,
    ModelsChanged,
    ModelState,
    NewConversation,
    NodeStatus,
    Notice,
    NoticeLevel,
    RemoveModel,
    RenameConversation,
    SendMessage,
    SettingsChanged,
    ShareChanged,
    StartShare,
    StopAnswer,
    StopNode,
    StopShare,
    Subscribe,
    SwarmStatus,
    Transcript,
    UseModel,
    VerifyModel,
)
from superbloom.domain.catalogue import STARTER
from superbloom.domain.conversation import Conversation
from superbloom.domain.errors import (
    InputRejected,
    InviteInvalid,
    NodeInUse,
    StorageFailed,
    UnknownModel,
)
from superbloom.domain.invite import decode_invite
from superbloom.domain.sampling import EndReason
from superbloom.domain.settings import Settings, ShareSettings
from superbloom.domain.sharing import ShareRequest, ShareState, ShareStatus
from superbloom.domain.span import Span
from superbloom.node import node as node_module
from superbloom.node.models.service import ModelService
from superbloom.node.node import Node
from superbloom.node.options import NodeOptions
from superbloom.node.swarm import Entry
from superbloom.storage.fetching import FetchWatch
from superbloom.storage.model_files import ModelFolder
from superbloom.storage.paths import DataFolder
from superbloom.storage.settings_file import load_settings, save_settings
from superbloom.swarm.memory import MemoryNetwork
from superbloom.swarm.transport import Transport

from .tiny_model import MODEL, write_tiny_model

FAKE = Path(__file__).with_name("fake_server.py")
APP = Path(__file__).parents[3] / "app"
E = TypeVar("E")


class View:
    """A connected view that remembers events."""

    def __init__(self, client: ControlClient) -> None:
        self.client = client
        self.seen: list[Event] = []
        self._news = asyncio.Event()
        self._reading = asyncio.create_task(self._read())

    @classmethod
    async def open(cls, data: DataFolder) -> View:
        address = read_address(data.control_file)
        assert address is not None
        client = await ControlClient.connect(address)
        await client.request(Subscribe())
        return cls(client)

    async def ask(self, request: object, kind: type[E]) -> E:
        reply = await self.client.request(request)  # type: ignore[arg-type]
        assert isinstance(reply, kind)
        return reply

    async def until(self, kind: type[E], holds: Callable[[E], bool] = lambda _: True) -> E:
        async with asyncio.timeout(40):
            while True:
                for event in self.seen:
                    if isinstance(event, kind) and holds(event):
                        return event
                self._news.clear()
                await self._news.wait()

    async def share(self, state: ShareState) -> ShareStatus:
        return (await self.until(ShareChanged, lambda e: e.status.state is state)).status

    async def close(self) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        await self.client.close()

    async def _read(self) -> None:
        async for event in self.client.events():
            self.seen.append(event)
            self._news.set()


class Computer:
    """A node that runs as a task of the test."""

    def __init__(self, folder: Path, network: MemoryNetwork) -> None:
        self.data = DataFolder(folder)
        self.data.ensure()
        self.network = network
        self.views: list[View] = []
        self.running: asyncio.Task[None] | None = None

    async def start(self, mode: str = "good", **options: object) -> View:
        given: dict[str, object] = {"model": MODEL, **options}
        node = Node(
            self.data,
            NodeOptions(**given),  # type: ignore[arg-type]
            connect=self._connect,
            server=(sys.executable, str(FAKE), mode),
        )
        ready = asyncio.Event()
        self.running = asyncio.create_task(node.run(lambda _: ready.set()))
        async with asyncio.timeout(20):
            await ready.wait()
        return await self.view()

    async def view(self) -> View:
        self.views.append(await View.open(self.data))
        return self.views[-1]

    async def stop(self) -> None:
        views, self.views = self.views, []
        if self.running is not None and not self.running.done():
            await views[0].client.request(StopNode())
            async with asyncio.timeout(30):
                await self.running
        for view in views:
            await view.close()

    async def _connect(self, entry: Entry) -> Transport:
        return self.network.join(f"{self.data.root.name}-{entry.identity}")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
async def computer(
    tmp_path: Path, tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Computer]:
    monkeypatch.setenv("PYTHONPATH", str(APP))
    made = Computer(tmp_path / "data", MemoryNetwork())
    folder = made.data.models / MODEL
    shutil.copytree(tiny, folder)
    ModelFolder(MODEL, folder).seal(str(tiny), FetchWatch(lambda *_: None))
    yield made
    await made.stop()


async def test_the_share_begins_by_itself_and_is_kept(computer: Computer) -> None:
    view = await computer.start()
    status = await view.share(ShareState.SERVING)
    assert (status.model, status.span) == (MODEL, Span(0, 4))
    whole = await view.ask(GetStatus(), NodeStatus)
    assert whole.share.state is ShareState.SERVING
    assert whole.model == MODEL
    assert whole.swarm.connected
    assert {info.id: info.state for info in whole.models}[MODEL] is ModelState.READY
    off = await view.ask(StopShare(), ShareStatus)
    assert (off.state, off.wanted) == (ShareState.OFF, False)
    assert not load_settings(computer.data.settings_file)[0].share.wanted
    view.seen.clear()
    request = ShareRequest(model=MODEL, span=Span(1, 3), memory_bytes=1 << 30)
    await view.ask(StartShare(request=request), ShareStatus)
    await view.share(ShareState.SERVING)
    kept = load_settings(computer.data.settings_file)[0].share
    assert (kept.wanted, kept.span, kept.memory_bytes) == (True, Span(1, 3), 1 << 30)


async def test_no_share_holds_for_this_time_only(computer: Computer) -> None:
    view = await computer.start(share=False)
    assert (await view.ask(GetStatus(), NodeStatus)).share.state is ShareState.OFF
    assert load_settings(computer.data.settings_file)[0].share.wanted


async def test_nothing_is_left_when_it_stops(computer: Computer) -> None:
    before = psutil.Process().children(recursive=True)
    view = await computer.start()
    await view.share(ShareState.SERVING)
    children = set(psutil.Process().children(recursive=True)) - set(before)
    assert children
    await computer.stop()
    _gone, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
    assert not computer.data.control_file.exists()


async def test_a_server_that_dies_is_started_again_and_said_why(computer: Computer) -> None:
    view = await computer.start()
    await view.share(ShareState.SERVING)
    (server,) = (c for c in psutil.Process().children() if str(FAKE) in c.cmdline())
    view.seen.clear()
    server.kill()
    assert "SIGKILL" in (await view.share(ShareState.RESTARTING)).reason
    await view.share(ShareState.SERVING)


async def test_conversations(computer: Computer) -> None:
    view = await computer.start(share=False)
    other = await computer.view()
    head = await view.ask(NewConversation(system="Be brief."), Conversation)
    assert head.model == MODEL
    renamed = await view.ask(RenameConversation(conversation=head.id, title="Rivers"), Conversation)
    assert renamed.title == "Rivers"
    listed = await other.ask(ListConversations(), ConversationList)
    assert [c.title for c in listed.conversations] == ["Rivers"]
    transcript = await other.ask(GetTranscript(conversation=head.id), Transcript)
    assert [message.text for message in transcript.messages] == ["Be brief."]
    await view.ask(DeleteConversation(conversation=head.id), Done)
    with pytest.raises(InputRejected, match="no such conversation"):
        await view.client.request(GetTranscript(conversation=head.id))


async def test_a_question_that_cannot_be_answered_says_why(computer: Computer) -> None:
    view = await computer.start(share=False)  # the tiny model has no tokenizer
    head = await view.ask(NewConversation(), Conversation)
    begun = await view.ask(SendMessage(conversation=head.id, text="Hi?"), Answering)
    finished = await view.until(ChatFinished)
    assert finished.answer.id == begun.answer.id
    assert finished.answer.end is EndReason.FAILED
    assert "tokenizer" in finished.error
    assert finished.next_step


async def test_a_question_for_a_model_that_is_not_here(computer: Computer) -> None:
    view = await computer.start(share=False)
    head = await view.ask(NewConversation(model=MODEL), Conversation)
    await view.ask(RemoveModel(model=MODEL), Done)
    await view.ask(SendMessage(conversation=head.id, text="Hi?"), Answering)
    finished = await view.until(ChatFinished)
    assert MODEL in finished.error
    await view.ask(StopAnswer(conversation=head.id), Done)


async def test_what_the_user_chooses_is_kept_and_told(computer: Computer) -> None:
    view = await computer.start(share=False)
    other = await computer.view()
    assert (await view.ask(GetStatus(), NodeStatus)).guess_ahead
    assert (await view.ask(ChangeSettings(), NodeStatus)).guess_ahead
    changed = await view.ask(ChangeSettings(guess_ahead=False), NodeStatus)
    assert not changed.guess_ahead
    assert not load_settings(computer.data.settings_file)[0].guess_ahead
    await other.until(SettingsChanged, lambda told: not told.guess_ahead)
    changed = await view.ask(ChangeSettings(exact=True), NodeStatus)
    assert (changed.exact, changed.guess_ahead) == (True, False)
    assert load_settings(computer.data.settings_file)[0].exact
    await other.until(SettingsChanged, lambda told: told.exact)


async def test_models(computer: Computer, tiny: Path) -> None:
    view = await computer.start(share=False)
    imported = await view.ask(ImportModel(path=str(tiny), id="second"), ModelInfo)
    assert imported.state is ModelState.FETCHING

    async with asyncio.timeout(60):
        while (await view.ask(GetStatus(), NodeStatus)).models[-1].state is ModelState.FETCHING:
            await asyncio.sleep(0.05)
    assert (await view.ask(VerifyModel(model="second"), ModelInfo)).state is ModelState.READY
    assert (await view.ask(UseModel(model="second"), NodeStatus)).model == "second"
    assert load_settings(computer.data.settings_file)[0].model == "second"
    await view.ask(RemoveModel(model=MODEL), Done)
    await view.ask(CancelFetch(model="second"), Done)
    with pytest.raises(UnknownModel):
        await view.client.request(UseModel(model=MODEL))
    with pytest.raises(UnknownModel):
        await view.client.request(NewConversation(model="typo"))
    assert not (await view.ask(ListConversations(), ConversationList)).conversations
    with pytest.raises(InputRejected, match="imported"):
        await view.client.request(FetchModel(model="second"))
    with pytest.raises(InputRejected, match="blocks to fetch"):
        await view.client.request(FetchModel(model="second", first_block=3, end_block=1))


async def test_using_another_model_shares_that_one(computer: Computer, tiny: Path) -> None:
    view = await computer.start()
    await view.share(ShareState.SERVING)
    await view.ask(ImportModel(path=str(tiny), id="second"), ModelInfo)
    await view.ask(UseModel(model="second"), NodeStatus)
    await view.until(
        ShareChanged,
        lambda e: (e.status.model, e.status.state) == ("second", ShareState.SERVING),
    )


async def test_sharing_a_model_that_cannot_be_fetched_says_so(
    computer: Computer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    view = await computer.start(share=False)
    models = {info.id for info in (await view.ask(GetStatus(), NodeStatus)).models}
    absent = next(iter(sorted(models - {MODEL})))
    await view.ask(StartShare(request=ShareRequest(model=absent)), ShareStatus)
    failed = await view.share(ShareState.FAILED)
    assert "The hub cannot be reached" in failed.reason


async def test_swarms(computer: Computer) -> None:
    view = await computer.start()
    await view.share(ShareState.SERVING)
    before = (await view.ask(GetStatus(), NodeStatus)).swarm
    invitation = await view.ask(CreateInvite(hours=1.0, address="127.0.0.1"), Invitation)
    assert invitation.code.startswith("superbloom:")
    assert (await view.ask(JoinSwarm(code=invitation.code), SwarmStatus)).name == before.name
    with pytest.raises(InviteInvalid):
        await view.client.request(JoinSwarm(code="superbloom:nonsense"))
    view.seen.clear()
    after = await view.ask(LeaveSwarm(), SwarmStatus)
    assert after.name != before.name
    await view.until(  # the server follows into the new swarm
        ShareChanged,
        lambda e: e.status.state is ShareState.SERVING and e.status.peer == after.name,
    )


async def test_the_end_in_mid_wait_keeps_the_question(computer: Computer) -> None:
    view = await computer.start("silent")
    head = await view.ask(NewConversation(), Conversation)
    await view.ask(SendMessage(conversation=head.id, text="Hi?"), Answering)
    await view.until(ChatNotice)
    await computer.stop()
    view = await computer.start(share=False)
    transcript = await view.ask(GetTranscript(conversation=head.id), Transcript)
    assert transcript.messages[0].text == "Hi?"
    assert transcript.messages[1].end is not None


async def test_an_unknown_model_ends_the_start_and_is_not_kept(computer: Computer) -> None:
    node = Node(computer.data, NodeOptions(model="no-such-model"))
    with pytest.raises(UnknownModel):
        await node.run(lambda _: None)
    assert load_settings(computer.data.settings_file)[0].model == ""
    assert not computer.data.control_file.exists()


async def test_damaged_settings_are_set_aside(computer: Computer) -> None:
    computer.data.settings_file.write_text("{broken")
    view = await computer.start(share=False)
    assert (await view.ask(GetStatus(), NodeStatus)).model == MODEL
    (kept,) = computer.data.root.glob("settings.damaged-*")
    for late in (view, await computer.view()):
        said = await late.until(Notice)
        assert said.level is NoticeLevel.WARNING
        assert kept.name in said.message


async def test_damaged_conversations_are_told_to_everybody(computer: Computer) -> None:
    computer.data.database.write_bytes(b"no database" * 1000)
    view = await computer.start(share=False)
    for late in (view, await computer.view()):
        said = await late.until(Notice)
        (kept,) = computer.data.root.glob("conversations.damaged-*")
        assert kept.name in said.message


async def test_for_a_chosen_model_that_is_gone_the_starter_stands_in(computer: Computer) -> None:
    settings = Settings(model="gone", share=ShareSettings(wanted=False))
    save_settings(computer.data.settings_file, settings)
    view = await computer.start(model="")
    said = await view.until(Notice)
    assert "gone is not on this computer" in said.message
    assert "superbloom model use" in said.next_step
    invitation = await view.ask(CreateInvite(address="127.0.0.1"), Invitation)
    assert decode_invite(invitation.code, 0.0).name
    assert (await view.ask(GetStatus(), NodeStatus)).model == STARTER
    assert load_settings(computer.data.settings_file)[0].model == "gone"
    assert (await view.ask(UseModel(model=STARTER), NodeStatus)).model == STARTER
    assert load_settings(computer.data.settings_file)[0].model == STARTER


async def test_removing_the_chosen_model_chooses_the_starter(computer: Computer) -> None:
    view = await computer.start(share=False)
    await view.ask(RemoveModel(model=MODEL), Done)
    status = await view.ask(GetStatus(), NodeStatus)
    assert status.model == STARTER
    assert status.share.state is ShareState.OFF
    assert load_settings(computer.data.settings_file)[0].model == STARTER
    changed = await view.until(ModelsChanged, lambda e: e.model == STARTER)
    assert MODEL not in {info.id for info in changed.models}


async def test_a_beginning_that_fails_is_told(
    computer: Computer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(_service: ModelService, _model: str) -> ModelState:
        raise OSError("The disk is gone.")

    monkeypatch.setattr(ModelService, "stored", broken)
    view = await computer.start(share=False, model="")
    assert (await view.until(Notice)).level is NoticeLevel.ERROR
    assert "The disk is gone" in caplog.text


async def test_a_node_that_others_need_does_not_end_for_one_view(computer: Computer) -> None:
    view = await computer.start(share=False)
    other = await computer.view()
    with pytest.raises(NodeInUse):
        await view.client.request(StopNode(only_if_unused=True))
    await other.ask(CreateInvite(address="127.0.0.1"), Invitation)
    computer.views.remove(other)
    await other.close()
    await asyncio.sleep(0.1)
    with pytest.raises(NodeInUse):
        await view.client.request(StopNode(only_if_unused=True))
    assert await view.ask(GetStatus(), NodeStatus)


async def test_a_node_that_nobody_else_needs_ends_for_one_view(computer: Computer) -> None:
    view = await computer.start(share=False)
    await view.ask(CreateInvite(address="127.0.0.1"), Invitation)
    await view.ask(StopNode(only_if_unused=True), Done)
    assert computer.running is not None
    async with asyncio.timeout(30):
        await computer.running


async def test_a_borrowed_node_ends_once_its_borrower_and_others_are_gone(
    computer: Computer, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = asyncio.Event()
    monkeypatch.setattr(node_module, "stdin_closed", gone.wait)
    monkeypatch.setattr(node_module, "LOOK_SECONDS", 0.01)
    view = await computer.start(share=False, borrowed=True)
    gone.set()
    await asyncio.sleep(0.1)
    assert await view.ask(GetStatus(), NodeStatus)
    computer.views.remove(view)
    await view.close()
    assert computer.running is not None
    async with asyncio.timeout(30):
        await computer.running


async def test_a_folder_that_cannot_be_written_ends_the_start(computer: Computer) -> None:
    computer.data.control_file.mkdir()
    node = Node(computer.data, NodeOptions(model=MODEL))
    with pytest.raises(StorageFailed, match=computer.data.control_file.name):
        await node.run(lambda _: None)
