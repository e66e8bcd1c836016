"""Whether a window can be opened here, found out before Qt would abort. Imports no Qt."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Mapping

from superbloom.domain.errors import NoDisplay

PACKAGES = (
    "libdbus-1-3 libegl1 libfontconfig1 libgl1 libglib2.0-0 libx11-xcb1 libxcb-cursor0 "
    "libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-randr0 libxcb-render-util0 libxcb-shape0 "
    "libxcb-shm0 libxcb-sync1 libxcb-xfixes0 libxcb-xkb1 libxkbcommon-x11-0 libxkbcommon0"
)

LOADED_LATE = "libxcb-cursor.so.0"
"""What Qt's X11 plugin needs and Debian's desktops often lack; without it Qt aborts."""


def libraries_missing(reason: str) -> NoDisplay:
    """The error for a system that lacks what Qt stands on."""
    if sys.platform == "linux":
        step = (
            f"On Debian or Ubuntu: sudo apt-get install {PACKAGES}\n"
            "  Or chat in the terminal with `superbloom chat`."
        )
        return NoDisplay(f"The window needs system libraries that are missing ({reason}).", step)
    return NoDisplay(f"The window cannot be opened ({reason}).")


def check_display(environment: Mapping[str, str], platform: str = sys.platform) -> None:
    """Raises NoDisplay where no window can be opened."""
    if platform != "linux" or environment.get("QT_QPA_PLATFORM"):
        return
    if not environment.get("DISPLAY") and not environment.get("WAYLAND_DISPLAY"):
        raise NoDisplay("There is no display to open a window on.")
    if not environment.get("WAYLAND_DISPLAY"):
        _check_x_server(environment["DISPLAY"])


def _check_x_server(display: str) -> None:
    try:
        ctypes.CDLL(LOADED_LATE)
        xcb = ctypes.CDLL("libxcb.so.1")
    except OSError as error:
        raise libraries_missing(str(error).split(":")[0]) from error
    xcb.xcb_connect.restype = ctypes.c_void_p
    xcb.xcb_connection_has_error.argtypes = [ctypes.c_void_p]
    xcb.xcb_disconnect.argtypes = [ctypes.c_void_p]
    connection = xcb.xcb_connect(display.encode(), None)
    failed = xcb.xcb_connection_has_error(connection)
    xcb.xcb_disconnect(connection)
    if failed:
        raise NoDisplay(f"The display {display} does not answer.")
