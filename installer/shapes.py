"""Computes resources/catalogue/shapes.json: run it after changing the catalogue or the version.

`python installer/shapes.py` in the program's environment; a test tells when it is due.
"""

from pathlib import Path

from superbloom.domain.catalogue import read_catalogue
from superbloom.inference.shape import shape_of
from superbloom.node.models.shapes import encode_shapes, shapes_of

CATALOGUE = Path(__file__).resolve().parents[1] / "resources" / "catalogue"


def catalogue_shapes() -> bytes:
    """The file's content as it should be."""
    catalogue = read_catalogue((CATALOGUE / "models.json").read_text(encoding="utf-8"))
    return encode_shapes(shapes_of((card.config for card in catalogue), shape_of))


if __name__ == "__main__":
    (CATALOGUE / "shapes.json").write_bytes(catalogue_shapes())
