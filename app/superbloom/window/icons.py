"""Our own drawings: SVG files whose strokes take the colour that is asked for."""

from __future__ import annotations

from functools import cache

from PySide6.QtCore import QByteArray, QRectF, Qt
from PySide6.QtGui import QIcon, QPainter, QPixmap
from PySide6.QtSvg import QSvgRenderer

from superbloom.storage.paths import resource

SIZES = (16, 20, 24, 32, 48, 64)
"""In device pixels: what buttons and lists ask for at 100 % and 200 %."""


def draw_icon(name: str, color: str, disabled: str) -> QIcon:
    """The icon `name` with `currentColor` replaced, by `disabled` on what is disabled."""
    icon = QIcon()
    for mode, ink in ((QIcon.Mode.Normal, color), (QIcon.Mode.Disabled, disabled)):
        _draw_into(icon, _drawing(name).replace(b"currentColor", ink.encode()), SIZES, mode)
    return icon


def bloom_icon() -> QIcon:
    """The program's own icon, in its own colours."""
    icon = QIcon()
    sizes = (16, 22, 24, 32, 48, 64, 128, 256)
    _draw_into(icon, _drawing("superbloom"), sizes, QIcon.Mode.Normal)
    return icon


def bloom_pixmap(size: int, ratio: float) -> QPixmap:
    """The program's icon `size` logical pixels wide."""
    pixmap = _pixmap(_drawing("superbloom"), round(size * ratio))
    pixmap.setDevicePixelRatio(ratio)
    return pixmap


@cache
def _drawing(name: str) -> bytes:
    return resource("icons", f"{name}.svg").read_bytes()


def _draw_into(icon: QIcon, drawing: bytes, sizes: tuple[int, ...], mode: QIcon.Mode) -> None:
    for size in sizes:
        icon.addPixmap(_pixmap(drawing, size), mode)


def _pixmap(drawing: bytes, size: int) -> QPixmap:
    pixmap = QPixmap(size, size)
    pixmap.fill(Qt.GlobalColor.transparent)
    painter = QPainter(pixmap)
    QSvgRenderer(QByteArray(drawing)).render(painter, QRectF(0, 0, size, size))
    painter.end()
    return pixmap
