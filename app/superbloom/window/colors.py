"""The colours of both themes. Sand is the ground, poppy the accent, leaf and lupine its company."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Colors:
    """One theme's colours."""

    ground: str
    """Behind everything: the rail and the lists."""
    page: str
    surface: str
    """Cards and fields, above the page."""
    hover: str
    border: str
    text: str
    muted: str
    accent: str
    on_accent: str
    accent_soft: str
    leaf: str
    leaf_soft: str
    lupine: str
    lupine_soft: str
    warning: str
    warning_soft: str
    error: str
    error_soft: str


LIGHT = Colors(
    ground="#f3eee6",
    page="#fbf9f5",
    surface="#ffffff",
    hover="#eae3d8",
    border="#e2d9cb",
    text="#2a2522",
    muted="#70665d",
    accent="#b63e0b",
    on_accent="#ffffff",
    accent_soft="#fbe6d8",
    leaf="#35734a",
    leaf_soft="#e0efe2",
    lupine="#5654ab",
    lupine_soft="#e9e8f6",
    warning="#855a00",
    warning_soft="#fdf0d0",
    error="#b3261e",
    error_soft="#fbe3e0",
)

DARK = Colors(
    ground="#181513",
    page="#1f1b19",
    surface="#292421",
    hover="#362f2b",
    border="#403832",
    text="#f0e9e2",
    muted="#b0a499",
    accent="#f58f56",
    on_accent="#2b1206",
    accent_soft="#46291a",
    leaf="#8bcb97",
    leaf_soft="#22372a",
    lupine="#b0adf2",
    lupine_soft="#34324f",
    warning="#e8ba5f",
    warning_soft="#3c3018",
    error="#f6938a",
    error_soft="#472522",
)
