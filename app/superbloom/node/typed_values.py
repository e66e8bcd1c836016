"""Values typed for `node` and `serve`; each raises ArgumentTypeError with a sentence."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import TypeVar

from superbloom.domain.errors import InputRejected
from superbloom.domain.invite import is_address
from superbloom.storage.paths import DataFolder

R = TypeVar("R")


def typed(read: Callable[[str], R]) -> Callable[[str], R]:
    """A reader for argparse that says what was wrong."""

    def convert(text: str) -> R:
        try:
            return read(text)
        except InputRejected as error:
            raise argparse.ArgumentTypeError(error.message) from error
        except (ValueError, OverflowError) as error:
            raise argparse.ArgumentTypeError(str(error)) from error

    return convert


@typed
def data_folder(text: str) -> str:
    """The folder of --data-dir."""
    return str(DataFolder.at(text).root)


@typed
def port(text: str) -> int:
    """A port to listen on; 0 is any free one."""
    if not (text.isascii() and text.isdecimal() and int(text) <= 65535):
        raise ValueError(f"a port is a number from 0 to 65535, not {text!r}")
    return int(text)


@typed
def positive(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise ValueError(f"a whole number above 0 is needed, not {text!r}")
    return int(text)


@typed
def peer(text: str) -> str:
    """The address of a peer."""
    if not is_address(text):
        raise ValueError(f"an address is like /ip4/192.0.2.1/tcp/4001/p2p/ID, not {text!r}")
    return text
