"""Pictures of every page in both themes, in small windows too, to look at: `tour.py FOLDER`."""

from __future__ import annotations

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "app"), str(ROOT / "tests" / "window")]
os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")

from fake_node import MB, FakeNode, model, server  # noqa: E402
from PySide6.QtCore import QCoreApplication, QEvent, QEventLoop, Qt  # noqa: E402
from PySide6.QtTest import QTest  # noqa: E402
from PySide6.QtWidgets import QWidget  # noqa: E402

from superbloom.control.messages import (  # noqa: E402
    ModelProgress,
    ModelState,
    Notice,
    NoticeLevel,
    Reach,
    SwarmStatus,
)
from superbloom.domain.conversation import Role  # noqa: E402
from superbloom.domain.generation import ChatPhase  # noqa: E402
from superbloom.domain.model_card import Precision  # noqa: E402
from superbloom.domain.sharing import ShareState  # noqa: E402
from superbloom.domain.span import Span  # noqa: E402
from superbloom.domain.swarm_map import ServerState  # noqa: E402
from superbloom.storage.paths import DataFolder  # noqa: E402
from superbloom.window.application import Application  # noqa: E402
from superbloom.window.program import Program  # noqa: E402
from superbloom.window.theme import DARK, LIGHT  # noqa: E402

SETTLE_SECONDS = 0.4
LONG_NAME = "Mixture of Wildflowers 8x22B Instruct, distilled, third edition"

ANSWER = """A palindrome reads the same in both directions, so it is enough to compare the word \
with its reverse. Two things are worth a thought: *case* and *spaces*.

```python
def is_palindrome(text: str) -> bool:
    # letters and digits only, in one case
    kept = [letter.lower() for letter in text if letter.isalnum()]
    return kept == kept[::-1]


print(is_palindrome("A man, a plan, a canal: Panama"))  # True, with 21 letters
```

Some words to try it with:

1. `level` is one
2. `Superbloom` is not
3. `Never odd or even` is one, once the spaces are gone

| word | letters | palindrome |
|---|---|---|
| level | 5 | yes |
| meadow | 6 | no |

> The empty text counts as a palindrome too.

More about it stands in [the documentation](https://docs.python.org/3/)."""

POEM = """## After the rain

The desert kept its colours in the ground
and waited for one winter's worth of rain;
now poppies spill on every hill around
and lupines draw a river through the plain.

Nobody planted them. They came **together**, and that is the whole of the trick"""


class Tour:
    """Drives a whole window from a fake node and saves what it looks like."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True, exist_ok=True)
        self.qt = Program(sys.argv[:1])
        self.node = FakeNode(data)
        self._fill()
        self.node.start()
        self.application = Application(self.qt, DataFolder(data))
        self.window = self.application.window
        self.application.begin()
        self.window.resize(1120, 760)
        self.settle()

    def settle(self, seconds: float = SETTLE_SECONDS) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            QCoreApplication.processEvents(QEventLoop.ProcessEventsFlag.AllEvents, 20)
            QCoreApplication.sendPostedEvents(None, QEvent.Type.DeferredDelete)

    def take(self, name: str, widget: QWidget | None = None) -> None:
        """One picture in each theme."""
        for theme, colors in (("light", LIGHT), ("dark", DARK)):
            self.application.theme.use(colors)
            self.settle(0.25)
            (widget or self.window).grab().save(str(self.folder / f"{name}-{theme}.png"))
        self.application.theme.use(LIGHT)

    def snap(self, name: str) -> None:
        """One picture of the window as it came to be: a switch of theme mends many a flaw."""
        self.window.grab().save(str(self.folder / f"{name}-untouched.png"))

    def _fill(self) -> None:
        node = self.node
        says = node.message
        node.add_conversation(
            "Is this word a palindrome?",
            says(Role.USER, "Write a Python function that tells whether a word is a palindrome."),
            says(Role.ASSISTANT, ANSWER, tokens=214, tokens_per_second=38.2),
        )
        node.add_conversation(
            "A poem about wildflowers",
            says(Role.USER, "Write a short poem about wildflowers after the rain."),
            says(Role.ASSISTANT, "", end=None),
            age=400,
        )
        for number, title in enumerate(
            (
                "Why the sky is blue",
                "Packing list for a week in the mountains, in autumn",
                "Names for a small boat",
                "Letter to the landlord",
            )
        ):
            node.add_conversation(title, age=86_400.0 * (number + 1))
        node.models = (
            model(),
            model(
                "qwen3-8b",
                "Qwen3 8B",
                parameters=8_190_735_360,
                blocks=36,
                disk_bytes=0,
                state=ModelState.ABSENT,
                block_bytes=dict.fromkeys(Precision, 386 * MB),
                client_bytes=2489 * MB,
            ),
            model(
                "llama-3.3-70b-instruct",
                "Llama 3.3 70B Instruct",
                licence="Llama 3.3 Community",
                parameters=70_553_706_496,
                blocks=80,
                state=ModelState.FETCHING,
                block_bytes=dict.fromkeys(Precision, 1711 * MB),
                disk_bytes=12_900 * MB,
                client_bytes=4203 * MB,
            ),
            model(
                "bloom-176b",
                "BLOOM 176B",
                licence="BigScience RAIL 1.0",
                chat=False,
                parameters=176_247_271_424,
                blocks=70,
                state=ModelState.PARTIAL,
                block_bytes=dict.fromkeys(Precision, 4932 * MB),
                disk_bytes=24_000 * MB,
                client_bytes=7193 * MB,
            ),
        )


def share_of_two(tour: Tour) -> None:
    node = tour.node
    node.share = replace(
        node.share, span=Span(0, 18), memory_bytes=412 * MB, sessions=2, tokens_served=48_213
    )
    node.swarm = SwarmStatus(
        name="meadow",
        reach=Reach.OPEN,
        peer="12D3KooWnode",
        connected=True,
        servers=(
            server("studio", Span(0, 18), peer="12D3KooWmine"),
            server("anna", Span(8, 22), step_seconds=0.013, device="cuda"),
            server("ben", Span(16, 27), precision=Precision.INT8, step_seconds=0.034),
            server("garden-pi", Span(0, 6), state=ServerState.JOINING, step_seconds=0.0),
            server("old-laptop", Span(20, 24), state=ServerState.OFFLINE, step_seconds=0.2),
        ),
        round_trip_seconds={"12D3KooWmine": 0.0003, "12D3KooWanna": 0.0121, "12D3KooWben": 0.038},
    )


def main(folder: Path) -> None:
    with tempfile.TemporaryDirectory() as data:
        for step in stops(Tour(folder, Path(data))):
            step()


def stops(tour: Tour) -> Iterator[Callable[[], None]]:
    """The tour, one picture at a time."""
    window, node, actions = tour.window, tour.node, tour.application.actions
    yield lambda: tour.take("1-welcome")
    actions.open_conversation("c3")
    tour.settle()
    yield lambda: tour.take("2-answer")
    actions.open_conversation("c6")
    tour.settle()
    node.notice("c6", ChatPhase.WRITING, "", "studio", "anna", "ben")
    node.write("c6", POEM, tokens=61)
    tour.settle()
    window.chat.composer.write("And now one about the sea, please.\nIn four lines.")
    yield lambda: tour.take("3-writing")
    node.notice("c6", ChatPhase.RECOVERING, "ben was lost: garden-pi takes over")
    tour.settle()
    window.resize(780, 560)
    tour.settle()
    yield lambda: tour.take("4-narrow")
    actions.open_conversation("c3")
    tour.settle()
    window.chat.transcript.verticalScrollBar().setValue(20)
    window.chat.transcript.setFocus()
    for _stop in range(3):
        QTest.keyClick(tour.qt.focusWidget(), Qt.Key.Key_Tab)
    tour.settle()
    yield lambda: tour.take("4-scrolled")
    actions.open_conversation("c6")
    window.resize(1120, 760)
    share_of_two(tour)
    actions.refresh()
    tour.settle()
    for number, name in ((1, "5-share"), (2, "6-swarm"), (3, "7-models")):
        window.show_page(number)
        if number == 3:
            node.tell(
                ModelProgress(
                    model="llama-3.3-70b-instruct",
                    words="Fetching shard 5 of 30",
                    done_bytes=12_900 * MB,
                    total_bytes=141_100 * MB,
                )
            )
        tour.settle()
        yield lambda name=name: tour.take(name)
    form = window.share.form
    form.limit.setChecked(True)
    form.pick.setChecked(True)
    window.show_page(1)
    tour.settle()
    yield lambda: tour.take("5-share-chosen")
    window.show_page(2)
    window.swarm.invite_dialog.open()
    window.swarm.invite_dialog.make.click()
    tour.settle()
    yield lambda: tour.take("8-invite", window.swarm.invite_dialog)
    window.swarm.invite_dialog.close()
    window.swarm.join_dialog.begin()
    window.swarm.join_dialog.code.setPlainText("not a code")
    window.swarm.join_dialog.join.click()
    tour.settle()
    yield lambda: tour.take("9-join", window.swarm.join_dialog)
    window.swarm.join_dialog.close()
    window.show_page(0)
    actions.open_conversation("")
    node.share = replace(node.share, state=ShareState.LOADING, span=None)
    node.swarm = replace(node.swarm, servers=())
    node.models = (replace(node.models[0], state=ModelState.FETCHING), *node.models[1:])
    actions.refresh()
    node.tell(
        ModelProgress(
            model=node.model, words="Fetching SmolLM2 135M", done_bytes=43 * MB, total_bytes=93 * MB
        ),
        Notice(
            level=NoticeLevel.WARNING,
            message="The server process ended unasked.",
            next_step="It is started again in 2 seconds.",
        ),
    )
    tour.settle()
    yield lambda: tour.snap("10-first-start")
    yield lambda: tour.take("10-first-start")
    window.resize(760, 520)
    tour.settle()
    yield lambda: tour.take("11-smallest")
    yield from small_pages(tour)
    node.die()
    tour.settle()
    yield lambda: tour.snap("13-node-gone")
    window.resize(1120, 760)
    tour.settle()
    yield lambda: tour.take("13-node-gone")
    tour.application.quit()
    tour.settle()


def small_pages(tour: Tour) -> Iterator[Callable[[], None]]:
    """The smallest window without a message, with a long name, and with blocks missing."""
    window, node = tour.window, tour.node
    tour.application.board.dismiss()
    named = replace(node.models[0], name=LONG_NAME, state=ModelState.READY)
    node.models = (named, *node.models[1:])
    node.share = replace(node.share, state=ShareState.OFF, wanted=False)
    tour.application.actions.refresh()
    node.tell(
        ModelProgress(
            model=node.model, words="", done_bytes=93 * MB, total_bytes=93 * MB, finished=True
        )
    )
    tour.settle()
    for number, name in enumerate(("chat", "share", "swarm", "models")):
        window.show_page(number)
        tour.settle()
        yield lambda name=name: tour.take(f"12-smallest-{name}")
    window.show_page(0)
    window.resize(900, 620)
    tour.settle()
    yield lambda: tour.take("12-small")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path("tour"))
