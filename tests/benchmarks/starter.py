"""The starter model for the benchmarks: fetched once, then linked into fresh data folders."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

from tests.benchmarks.frame import say, superbloom

MODEL = "smollm2-135m-instruct"
FETCH_SECONDS = 600


def starter_folder(data: Path) -> Path:
    """The starter's folder in the data folder, fetched if need be."""
    folder = data / "models" / MODEL
    if not (folder / "superbloom.json").exists():
        say(f"fetching {MODEL} into {data}")
        words = ("model", "fetch", MODEL, "--data-dir", str(data))
        subprocess.run(superbloom(*words), check=True, timeout=FETCH_SECONDS)
    return folder


def linked_data(starter: Path, folder: Path) -> Path:
    """A data folder that holds the starter without a copy of its weights."""
    shutil.copytree(starter, folder / "models" / MODEL, copy_function=os.link)
    return folder
