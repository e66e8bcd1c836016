"""No tracked file names a machine's folders or a package registry's host."""

from __future__ import annotations

import re
from pathlib import Path

FORBIDDEN = {
    "a folder of one machine": r"(?<![\w.])/(?:work|root|home/\w+|Users/\w+|opt/\w+)/",
    "a drive of one machine": r"\b[A-Z]:\\\\?Users",
    "a registry's host": r"pypi\.o" + r"rg|pythonhosted\.o" + r"rg|deb\.debian\.o" + "rg|npmjs",
}


def test_files_name_no_machine_and_no_registry(root: Path, tracked: tuple[Path, ...]) -> None:
    found = []
    for name in tracked:
        content = (root / name).read_bytes()
        if name == Path("tests/architecture/test_words.py") or b"\0" in content:
            continue
        for number, line in enumerate(content.decode("utf-8").splitlines(), 1):
            found += [
                f"{name}:{number} names {what}: {line.strip()[:80]}"
                for what, pattern in FORBIDDEN.items()
                if re.search(pattern, line)
            ]
    assert not found, "\n".join(found)


def test_text_files_end_with_a_line_break(root: Path, tracked: tuple[Path, ...]) -> None:
    for name in tracked:
        content = (root / name).read_bytes()
        if content and b"\0" not in content:
            assert content.endswith(b"\n"), name
