"""The shapes that come with the program are those that are computed from the catalogue."""

from __future__ import annotations

import json

from superbloom.domain.catalogue import read_catalogue
from superbloom.inference.shape import shape_of
from superbloom.node.models.shapes import encode_shapes, shapes_of
from superbloom.storage.paths import resource


def test_the_file_is_up_to_date() -> None:
    catalogue = read_catalogue(resource("catalogue", "models.json").read_text(encoding="utf-8"))
    computed = encode_shapes(shapes_of((card.config for card in catalogue), shape_of))
    shipped = resource("catalogue", "shapes.json").read_bytes()
    assert json.loads(shipped) == json.loads(computed), "run installer/shapes.py"
