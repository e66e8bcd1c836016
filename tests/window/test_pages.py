"""Share, swarm and models: what they show and what they ask for."""

from __future__ import annotations

import time
from dataclasses import replace

import pytest
from fake_node import MB, FakeNode, Until, model, server
from PySide6.QtCore import Qt
from PySide6.QtGui import QGuiApplication
from PySide6.QtWidgets import QMessageBox

from superbloom.control.messages import (
    CancelFetch,
    ChangeSettings,
    CreateInvite,
    FetchModel,
    Invitation,
    JoinSwarm,
    LeaveSwarm,
    ModelProgress,
    ModelsChanged,
    ModelState,
    Reach,
    RemoveModel,
    SettingsChanged,
    ShareChanged,
    StartShare,
    StopShare,
    SwarmChanged,
    UseModel,
)
from superbloom.domain.errors import (
    BudgetTooSmall,
    DiskFull,
    InviteInvalid,
    SecretsUnavailable,
    SuperbloomError,
)
from superbloom.domain.model_card import Precision
from superbloom.domain.sharing import SHARE_WORDS, ShareRequest, ShareState
from superbloom.domain.span import Span
from superbloom.window.application import Application
from superbloom.window.network.page import coverage_words, runs_words
from superbloom.window.sharing.budget import blocks_held, bytes_for


@pytest.mark.parametrize("state", list(ShareState))
def test_the_share_page_uses_the_words_of_all_views(
    program: Application, node: FakeNode, until: Until, state: ShareState
) -> None:
    page = program.window.share
    node.tell(ShareChanged(status=replace(node.share, state=state, reason="Because.")))
    until(lambda: page.state.text() == SHARE_WORDS[state] and page.reason.text() == "Because.")


def test_the_share_page_shows_what_is_served(
    program: Application, node: FakeNode, until: Until
) -> None:
    page = program.window.share
    node.share = replace(node.share, span=Span(3, 12), sessions=2, tokens_served=48_213)
    node.tell(ShareChanged(status=node.share))
    until(lambda: page.facts.fact("Blocks") == "3-11 of 30")
    assert [n for n, block in enumerate(page.bar.blocks) if block.mine] == list(range(3, 12))
    assert page.facts.fact("Precision") == "16 bits (bf16)"
    assert page.facts.fact("Open sessions") == "2"
    assert page.facts.fact("Tokens served") == "48\u202f213 tokens"


def test_the_switch_stops_and_starts(program: Application, node: FakeNode, until: Until) -> None:
    page = program.window.share
    assert page.switch.isChecked()
    page.switch.click()
    until(lambda: page.state.text() == "Not sharing")
    assert len(node.asked(StopShare)) == 1
    assert not page.switch.isChecked()
    page.switch.click()
    until(lambda: bool(node.asked(StartShare)))
    page.finish.click()
    until(lambda: any(one.drain for one in node.asked(StopShare)))


def test_the_switch_shares_as_last_time(program: Application, node: FakeNode, until: Until) -> None:
    page = program.window.share
    page.switch.click()
    until(lambda: page.state.text() == "Not sharing")
    page.switch.click()
    until(lambda: bool(node.asked(StartShare)))
    assert node.asked(StartShare)[0].request is None


def test_what_was_chosen_in_the_form_since_counts_for_the_switch(
    program: Application, node: FakeNode, until: Until
) -> None:
    page = program.window.share
    page.switch.click()
    until(lambda: page.state.text() == "Not sharing")
    page.form.limit.setChecked(True)
    page.switch.click()
    until(lambda: bool(node.asked(StartShare)))
    assert node.asked(StartShare)[0].request == page.form.request()
    until(lambda: not page.form.is_edited)


def test_the_form_shows_what_was_asked_for_last(
    program: Application, node: FakeNode, until: Until
) -> None:
    wish = ShareRequest(
        model=node.model,
        span=Span(3, 9),
        memory_bytes=777_777_777,
        precision=Precision.INT8,
        device="cuda:1",
        threads=3,
    )
    form = program.window.share.form
    node.share = replace(node.share, wish=wish)
    node.tell(ShareChanged(status=node.share))
    until(lambda: form.request() == wish)
    assert (form.first.value(), form.last.value()) == (3, 8)
    assert form.slider.value() == 777_777_777 // (16 * 1024 * 1024)
    assert not form.is_edited
    form.first.setValue(5)
    assert form.is_edited
    node.tell(ShareChanged(status=replace(node.share, sessions=1)))
    until(lambda: program.window.share.facts.fact("Open sessions") == "1")
    assert form.request() == replace(wish, span=Span(5, 9))


def test_news_of_the_model_leave_the_form_as_it_is(
    program: Application, node: FakeNode, until: Until
) -> None:
    form = program.window.share.form
    form.limit.setChecked(True)
    form.slider.setValue(12)
    form.pick.setChecked(True)
    form.first.setValue(4)
    form.last.setValue(25)
    chosen = form.request()
    changed = model(disk_bytes=1)
    node.tell(ModelsChanged(models=(changed,), model=node.model))
    until(lambda: form._model == changed)
    assert form.request() == chosen
    smaller = model(blocks=20)
    node.tell(ModelsChanged(models=(smaller,), model=node.model))
    until(lambda: form._model == smaller)
    assert form.request() == replace(chosen, span=Span(4, 20))


def test_only_precisions_that_the_model_has_can_be_chosen(
    program: Application, node: FakeNode, until: Until
) -> None:
    form = program.window.share.form
    form.precision.setCurrentIndex(form.precision.findData(Precision.NF4))
    assert form.request().precision is Precision.NF4
    sizes = {Precision.BF16: 7 * MB, Precision.FP32: 14 * MB}
    odd = model(block_bytes=sizes)
    node.tell(ModelsChanged(models=(odd,), model=node.model))
    until(lambda: form._model == odd)
    assert form.request().precision is None
    items = form.precision.model()
    enabled = Qt.ItemFlag.ItemIsEnabled
    rows = [items.index(row, 0) for row in range(form.precision.count())]
    assert [bool(row.flags() & enabled) for row in rows] == [True] * 3 + [False] * 3


def test_finishing_waits_as_long_as_open_answers_take(
    program: Application, node: FakeNode, until: Until, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("superbloom.window.link.CHECK_MILLISECONDS", 1)
    node.script[StopShare] = lambda request: None
    program.window.share.finish.click()
    until(lambda: bool(node.asked(StopShare)))
    waiting = list(program.link._waiting.values())
    assert min(one.deadline for one in waiting) > time.monotonic() + 620


def test_a_refused_share_is_told_and_the_switch_goes_back(
    program: Application, node: FakeNode, until: Until
) -> None:
    page = program.window.share
    node.share = replace(node.share, state=ShareState.OFF, wanted=False)
    node.tell(ShareChanged(status=node.share))
    until(lambda: not page.switch.isChecked())
    node.script[StartShare] = lambda request: BudgetTooSmall("Not one block fits.")
    page.switch.click()
    until(lambda: program.board.newest is not None)
    assert not page.switch.isChecked()
    assert program.window.messages.isVisible()


def test_the_form_asks_for_what_is_chosen(
    program: Application, node: FakeNode, until: Until
) -> None:
    form = program.window.share.form
    assert form.request().memory_bytes is None
    assert form.request().span is None
    form.precision.setCurrentIndex(form.precision.findData(Precision.INT8))
    form.limit.setChecked(True)
    form.slider.setValue(form.slider.minimum())
    held = blocks_held(model(), Precision.INT8, form.slider.value() * 16 * 1024 * 1024)
    assert f"hold {held} of 30 blocks" in form.holds.text()
    form.pick.setChecked(True)
    form.first.setValue(4)
    form.last.setValue(9)
    form.first.setValue(12)
    assert form.last.value() == 12
    program.window.share.apply.click()
    until(lambda: bool(node.asked(StartShare)))
    request = node.asked(StartShare)[0].request
    assert request.precision is Precision.INT8
    assert request.span == Span(12, 13)
    assert request.memory_bytes == form.slider.value() * 16 * 1024 * 1024


@pytest.mark.parametrize("blocks", [1, 7, 30])
@pytest.mark.parametrize("precision", [Precision.BF16, Precision.NF4, Precision.FP32])
def test_the_budget_is_the_least_that_holds(blocks: int, precision: Precision) -> None:
    least = bytes_for(model(), precision, blocks)
    assert blocks_held(model(), precision, least) >= blocks
    assert blocks_held(model(), precision, least - 16 * 1024 * 1024) < blocks


def test_the_swarm_page_shows_coverage_and_servers(
    program: Application, node: FakeNode, until: Until
) -> None:
    page = program.window.swarm
    node.swarm = replace(
        node.swarm,
        reach=Reach.OPEN,
        servers=(server("mine", Span(0, 12)), server("anna", Span(8, 20), step_seconds=0.02)),
        round_trip_seconds={"12D3KooWanna": 0.0123},
    )
    node.tell(SwarmChanged(status=node.swarm))
    until(lambda: page.rows.rowCount() == 2)
    assert [len(one.names) for one in page.bar.blocks] == [1] * 8 + [2] * 4 + [1] * 8 + [0] * 10
    assert page.verdict.text().startswith("Missing: blocks 20-29.")
    shown = [str(page.rows.index(1, column).data()) for column in range(7)]
    assert shown == ["anna", "8-19", "Online", "50.0 tokens/s", "bf16", "12 ms", "0.1.0"]
    assert page.rows.index(0, 0).data() == "mine (this computer)"
    assert page.facts.fact("Reach") == "Open to invited computers"
    assert page.bar.words_at(page.bar.width() * 9 // 30) == "Block 9: mine, anna"


def test_coverage_in_words() -> None:
    assert coverage_words((2, 3, 2))[0] == "Complete. Every block is held by at least 2 servers."
    assert coverage_words((1, 1))[0] == "Complete. Every block is held by one server only."
    assert coverage_words((1, 2))[0] == "Complete. Blocks 0 are held by one server only."
    assert coverage_words((0, 2))[1] == "warning"
    assert runs_words([0, 1, 2, 7, 9, 10]) == "0-2, 7, 9-10"


def test_an_invite_is_made_and_copied(program: Application, node: FakeNode, until: Until) -> None:
    program.window.swarm.invite.click()
    dialog = program.window.swarm.invite_dialog
    dialog.hours.setCurrentIndex(0)
    dialog.address.setText(" my.example.org ")
    dialog.make.click()
    until(lambda: dialog.code.toPlainText().startswith("superbloom:"))
    request = node.asked(CreateInvite)[0]
    assert (request.hours, request.address) == (1.0, "my.example.org")
    dialog.copy.click()
    assert QGuiApplication.clipboard().text() == dialog.code.toPlainText()
    dialog.reject()


def test_a_code_of_a_swarm_that_was_left_is_not_offered(
    program: Application, node: FakeNode, until: Until
) -> None:
    page, dialog = program.window.swarm, program.window.swarm.invite_dialog
    page.invite.click()
    dialog.make.click()
    until(dialog.code.isVisible)
    dialog.reject()
    page.invite.click()
    assert dialog.code.toPlainText() == ""
    assert not dialog.copy.isVisible()
    assert dialog.words.text() == ""
    node.script[CreateInvite] = lambda request: None
    dialog.make.click()
    until(lambda: len(node.asked(CreateInvite)) == 2)
    late = next(iter(program.link._waiting.values()))
    dialog.reject()
    page.invite.click()
    late.receive(Invitation(code="superbloom:LATE", expires_at=time.time()))
    assert dialog.code.toPlainText() == ""
    assert dialog.make.isEnabled()
    dialog.reject()


def test_a_join_that_fails_after_its_dialog_was_closed_is_told(
    program: Application, node: FakeNode, until: Until
) -> None:
    node.script[JoinSwarm] = lambda request: None
    page, dialog = program.window.swarm, program.window.swarm.join_dialog
    page.join.click()
    dialog.code.setPlainText("superbloom:AB")
    assert dialog.cancel.text() == "Cancel"
    dialog.join.click()
    until(lambda: bool(node.asked(JoinSwarm)))
    assert dialog.cancel.text() == "Close"
    assert "goes on" in dialog.words.text()
    dialog.cancel.click()
    assert not dialog.isVisible()
    page.join.click()
    assert dialog.code.toPlainText() == "superbloom:AB"
    assert not dialog.join.isEnabled()
    dialog.cancel.click()
    next(iter(program.link._waiting.values())).fail(InviteInvalid("Too old."))
    assert program.board.newest is not None
    assert program.board.newest.sentence == "Too old."
    page.join.click()
    assert dialog.cancel.text() == "Cancel"
    assert dialog.words.text() == ""
    dialog.reject()


def test_an_invite_that_fails_after_its_dialog_was_closed_is_told(
    program: Application, node: FakeNode, until: Until
) -> None:
    node.script[CreateInvite] = lambda request: None
    dialog = program.window.swarm.invite_dialog
    program.window.swarm.invite.click()
    dialog.make.click()
    until(lambda: bool(node.asked(CreateInvite)))
    dialog.reject()
    next(iter(program.link._waiting.values())).fail(InviteInvalid("No port."))
    assert program.board.newest is not None
    assert program.board.newest.sentence == "No port."


def test_joining_takes_the_code_from_the_clipboard_and_closes(
    program: Application, node: FakeNode, until: Until
) -> None:
    QGuiApplication.clipboard().setText(" superbloom:ABC\n")
    program.window.swarm.join.click()
    dialog = program.window.swarm.join_dialog
    assert dialog.code.toPlainText() == "superbloom:ABC"
    dialog.code.setPlainText("superbloom:AB\nCD EF")
    dialog.join.click()
    until(lambda: not dialog.isVisible())
    assert node.asked(JoinSwarm)[0].code == "superbloom:ABCDEF"
    until(lambda: program.window.swarm.facts.fact("Name") == "orchard")


def test_a_wrong_code_is_said_in_the_dialog(
    program: Application, node: FakeNode, until: Until
) -> None:
    program.window.swarm.join_dialog.begin()
    dialog = program.window.swarm.join_dialog
    dialog.code.setPlainText("hello")
    dialog.join.click()
    until(lambda: "This is not an invite code." in dialog.words.text())
    assert dialog.join.isEnabled()
    dialog.reject()


def test_leaving_asks_first(program: Application, node: FakeNode, until: Until) -> None:
    program.window.swarm.leave.click()
    box = program.window.findChild(QMessageBox)
    assert box is not None
    next(one for one in box.buttons() if one.text() == "Leave").click()
    until(lambda: bool(node.asked(LeaveSwarm)))


def test_models_are_fetched_cancelled_used_and_removed(
    program: Application, node: FakeNode, until: Until
) -> None:
    page = program.window.models
    program.window.show_page(3)
    node.models = (*node.models, model("qwen3", "Qwen3 8B", state=ModelState.ABSENT))
    node.tell(ModelsChanged(models=node.models, model=node.model))
    until(lambda: "qwen3" in page.rows)
    row = page.rows["qwen3"]
    assert row.main.text() == "Fetch"
    row.main.click()
    until(lambda: row.main.text() == "Cancel")
    assert node.asked(FetchModel)[0].model == "qwen3"
    node.tell(ModelProgress(model="qwen3", done_bytes=25 * MB, total_bytes=100 * MB, words="Going"))
    until(lambda: row.progress_words.text() == "Going · 25 MB of 100 MB")
    assert row.progress.value() == 250
    row.main.click()
    until(lambda: bool(node.asked(CancelFetch)))
    ready = replace(node.models[1], state=ModelState.READY)
    node.models = (node.models[0], ready)
    node.tell(
        ModelProgress(model="qwen3", done_bytes=1, total_bytes=1, words="", finished=True),
        ModelsChanged(models=node.models, model=node.model),
    )
    until(lambda: row.main.text() == "Use")
    row.main.click()
    until(lambda: program.store.model == "qwen3")
    assert node.asked(UseModel)
    assert row.main.isHidden()
    row.ask_remove()
    box = program.window.findChild(QMessageBox)
    assert box is not None
    next(one for one in box.buttons() if one.text() == "Remove").click()
    until(lambda: bool(node.asked(RemoveModel)))


def test_a_small_model_guesses_ahead_unless_the_user_says_no(
    program: Application, node: FakeNode, until: Until
) -> None:
    switch = program.window.models.guess_ahead.switch
    assert switch.isChecked()
    switch.click()
    until(lambda: bool(node.asked(ChangeSettings)))
    assert node.asked(ChangeSettings)[0].guess_ahead is False
    until(lambda: not program.store.guess_ahead)
    node.tell(SettingsChanged(guess_ahead=True))  # another view has changed it back
    until(switch.isChecked)


def test_prompts_are_exact_if_the_user_says_so(
    program: Application, node: FakeNode, until: Until
) -> None:
    switch = program.window.swarm.exact.switch
    assert not switch.isChecked()
    switch.click()
    until(lambda: bool(node.asked(ChangeSettings)))
    assert node.asked(ChangeSettings)[0] == ChangeSettings(exact=True)
    until(lambda: program.store.exact and program.store.guess_ahead)
    node.tell(SettingsChanged(guess_ahead=True, exact=False))  # another view has changed it back
    until(lambda: not switch.isChecked())


def test_a_choice_that_cannot_be_kept_goes_back(
    program: Application, node: FakeNode, until: Until
) -> None:
    node.script[ChangeSettings] = lambda _: DiskFull("The disk is full.")
    switch = program.window.models.guess_ahead.switch
    switch.click()
    until(lambda: bool(node.asked(ChangeSettings)))
    until(switch.isChecked)


def test_a_model_of_unknown_shape_breaks_nothing(
    program: Application, node: FakeNode, until: Until
) -> None:
    odd = model(blocks=0, block_bytes={}, hidden_size=0, parameters=0)
    node.tell(ModelsChanged(models=(odd,), model=odd.id))
    until(lambda: program.store.models == (odd,))
    for number in range(4):
        program.window.show_page(number)
        program.window.grab()


def test_while_the_model_comes_one_can_write_and_send(
    program: Application, node: FakeNode, until: Until
) -> None:
    node.tell(ModelProgress(model=node.model, done_bytes=MB, total_bytes=4 * MB, words="Fetching"))
    chat = program.window.chat
    until(chat.preparation.isVisible)
    assert chat.preparation.bar.value() == 250
    chat.composer.write("already")
    assert chat.composer.send_button.isEnabled()


def test_without_a_keyring_an_invite_asks_for_consent_to_a_file(
    program: Application, node: FakeNode, until: Until
) -> None:
    def answer(request: CreateInvite) -> Invitation | SuperbloomError:
        if not request.keep_in_file:
            return SecretsUnavailable("There is no keyring to keep secrets in.")
        return Invitation(code="superbloom:AB", expires_at=time.time() + 3600)

    node.script[CreateInvite] = answer
    dialog = program.window.swarm.invite_dialog
    program.window.swarm.invite.click()
    dialog.make.click()
    until(lambda: dialog.findChild(QMessageBox) is not None)
    question = dialog.findChild(QMessageBox)
    assert "file" in question.text()
    next(b for b in question.buttons() if "file" in b.text()).click()
    until(lambda: dialog.code.toPlainText() == "superbloom:AB")
    assert node.asked(CreateInvite)[-1].keep_in_file
    dialog.reject()
