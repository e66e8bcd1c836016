"""Values as they are typed on the command line; each raises ArgumentTypeError with a sentence."""

from __future__ import annotations

import argparse

from superbloom.domain.budget import parse_size
from superbloom.domain.errors import InputRejected
from superbloom.domain.model_card import Precision
from superbloom.domain.span import Span
from superbloom.storage.paths import DataFolder

YEAR_HOURS = 24 * 366


def data_folder(text: str) -> str:
    """The folder of --data-dir."""
    try:
        return str(DataFolder.at(text).root)
    except InputRejected as error:
        raise argparse.ArgumentTypeError(error.message) from None


def blocks(text: str) -> Span:
    """Blocks as `first:end`, the end not among them."""
    try:
        return Span.parse(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not like 0:15 (first:end)") from None


def size(text: str) -> int:
    """Bytes, as `4GB` or `512M`."""
    try:
        return parse_size(text)
    except (ValueError, OverflowError):
        raise argparse.ArgumentTypeError(f"{text!r} is not a size like 4GB or 512M") from None


def precision(text: str) -> Precision:
    """A precision by its name."""
    try:
        return Precision.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def count(text: str) -> int:
    """A whole number from 1 on."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 on")
    return int(text)


def hours(text: str) -> float:
    """Hours, above 0 and at most a year."""
    try:
        given = float(text)
    except ValueError:
        given = 0.0
    if not 0 < given <= YEAR_HOURS:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of hours within a year")
    return given
