"""Prose loads nothing, shows HTML as text, and opens only web links."""

from __future__ import annotations

from pathlib import Path

import pytest
from PySide6.QtCore import QUrl
from PySide6.QtGui import QColor, QImage, QTextDocument
from pytestqt.qtbot import QtBot

from superbloom.window.chat import prose_view
from superbloom.window.chat.prose_view import ProseView
from superbloom.window.theme import DARK, Theme


@pytest.fixture
def view(qtbot: QtBot, theme: Theme) -> ProseView:
    made = ProseView(theme, "Answer")
    qtbot.addWidget(made)
    made.resize(500, 100)
    return made


@pytest.mark.parametrize("how", ["{}", "file://{}", "qrc:{}"])
def test_a_picture_on_the_disk_is_not_read(view: ProseView, tmp_path: Path, how: str) -> None:
    picture = tmp_path / "private.png"
    image = QImage(40, 40, QImage.Format.Format_RGB32)
    image.fill(QColor("red"))
    assert image.save(str(picture))
    name = how.format(picture)
    view.show_markdown(f"before ![my alt]({name}) after")
    view.show()
    assert "picture not loaded: my alt" in view.toPlainText()
    kind = QTextDocument.ResourceType.ImageResource.value
    for loaded in (
        view.document().resource(kind, QUrl(name)),
        view.loadResource(kind, QUrl(name)),
    ):
        assert isinstance(loaded, QImage)
        assert loaded.width() == 1


def test_pictures_from_the_net_are_never_asked_for(
    view: ProseView, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    nothing = prose_view._nothing
    monkeypatch.setattr(prose_view, "_nothing", lambda: asked.append(1) or nothing())
    view.show_markdown("![](http://example.org/a.png) ![x](https://example.org/b.png)\n\ntext")
    view.show()
    view.grab()
    assert view.toPlainText().strip().startswith("[picture not loaded: x]")
    kind = QTextDocument.ResourceType.ImageResource.value
    assert view.document().resource(kind, QUrl("http://example.org/a.png")).width() == 1
    assert asked


def test_html_stays_text(view: ProseView) -> None:
    view.show_markdown('<img src="file:///etc/hostname"> <b>bold</b> <script>x</script>')
    assert "<b>bold</b>" in view.toPlainText()
    assert "<img" in view.toPlainText()
    view.show_plain("<i>as typed</i> ![](http://x/y.png)")
    assert view.toPlainText() == "<i>as typed</i> ![](http://x/y.png)"


@pytest.mark.parametrize(
    ("url", "told"),
    [
        ("https://example.org/", True),
        ("HTTP://example.org/", True),
        ("file:///etc/passwd", False),
        ("javascript:alert(1)", False),
        ("mailto:a@example.org", False),
        ("superbloom:code", False),
    ],
)
def test_only_web_links_are_told(view: ProseView, url: str, told: bool) -> None:
    clicked: list[QUrl] = []
    view.link_clicked.connect(clicked.append)
    view.show_markdown(f"[here]({url})")
    view.anchorClicked.emit(QUrl(url))
    assert bool(clicked) is told


def test_it_is_as_tall_as_its_text(view: ProseView, qtbot: QtBot) -> None:
    view.show()
    view.show_markdown("one line")
    low = view.height()
    view.show_markdown("many words " * 200)
    assert view.height() > 5 * low
    assert not view.verticalScrollBar().maximum()
    view.setFixedWidth(250)
    narrow = view.height()
    view.setFixedWidth(900)
    assert view.height() < narrow


def test_a_changed_theme_draws_it_anew(view: ProseView, theme: Theme) -> None:
    view.show_markdown("a `b` c")
    theme.use(DARK)
    assert DARK.hover in view.document().toHtml()
