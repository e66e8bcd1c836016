"""The script behind the README's two commands."""

from __future__ import annotations

import importlib.util
import io
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture
def script(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The script as a module, with an empty environment folder of its own."""
    spec = importlib.util.spec_from_file_location("start_script", root / "installer/run.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    (tmp_path / "pyproject.toml").write_text('dependencies = ["torch==1.2.3"]\n')
    environment = tmp_path / ".venv"
    environment.mkdir()
    monkeypatch.setattr(module, "ROOT", tmp_path)
    monkeypatch.setattr(module, "ENVIRONMENT", environment)
    monkeypatch.setattr(module, "STAMP", environment / "stamp")
    monkeypatch.setattr(module, "LOG", environment / "install.log")
    monkeypatch.setattr(module, "PYTHON", Path(sys.executable))
    return module


def test_it_needs_the_standard_library_only(root: Path) -> None:
    ran = subprocess.run(
        [sys.executable, "-S", "-E", str(root / "installer/run.py"), "--help"],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert ran.returncode == 0, ran.stderr
    assert "python3 installer/run.py test" in ran.stdout


def test_the_readme_names_both_commands(root: Path) -> None:
    readme = (root / "README.md").read_text("utf-8")
    assert "python3 installer/run.py\n" in readme
    assert "python3 installer/run.py test\n" in readme


def test_it_finds_the_pinned_torch_in_the_real_project(script: ModuleType, root: Path) -> None:
    assert script.torch_release() == "torch==1.2.3"
    script.ROOT = root
    assert script.torch_release().startswith("torch==")


def test_a_finished_installation_is_not_repeated(script: ModuleType) -> None:
    assert script.installed_parts() is None
    script.write_stamp({"test", "window"})
    assert script.installed_parts() == {"test", "window"}
    script.install("test", window=True)  # would fail if it asked pip: the project has no build


def test_a_changed_project_is_installed_again(script: ModuleType) -> None:
    script.write_stamp({"window"})
    (script.ROOT / "pyproject.toml").write_text("dependencies = []\n")
    assert script.installed_parts() is None


@pytest.mark.parametrize(
    ("last_words", "expected"),
    [
        ("OSError: [Errno 28] No space left on device", "The disk is full."),
        ("NewConnectionError('...: Temporary failure in name resolution')", "cannot be reached"),
        ("error: subprocess-exited-with-error", "pip failed"),
    ],
)
def test_a_failure_of_pip_is_told_in_words(
    script: ModuleType, last_words: str, expected: str
) -> None:
    assert expected in str(script.explain(["Collecting torch", last_words]))


def test_pips_lines_become_few(script: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (
        "Collecting torch==1.2.3\n"
        "Downloading torch-1.2.3-cp311-none-any.whl (180.5 MB)\n"
        "Progress 90000000 of 180500000\n"
        "Downloading tiny-0.1-py3-none-any.whl (5 kB)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", f"print({lines!r}, end='')"], stdout=subprocess.PIPE, text=True
    ) as process:
        kept = script.follow(process, io.StringIO())
    assert capsys.readouterr().out == "  fetching torch-1.2.3 (180.5 MB)\n"
    assert "Progress 90000000 of 180500000" not in kept


def test_too_small_a_disk_is_refused_before_anything_is_fetched(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "PYTHON", script.ENVIRONMENT / "bin/python")
    usage = type("Usage", (), {"free": 1_500_000_000})
    monkeypatch.setattr(script.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(script.Refused, match=r"Only 1\.5 GB are free"):
        script.check_disk()


def test_an_unsuitable_python_is_named_with_what_to_install(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script.sys, "version_info", (3, 10, 0))
    monkeypatch.setattr(script.shutil, "which", lambda name: None)
    with pytest.raises(script.Refused, match=r"needs Python 3\.11, 3\.12 or 3\.13"):
        script.use_suitable_python()


def test_without_root_the_missing_system_packages_are_one_line_to_run(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script.shutil, "which", lambda name: "/usr/bin/apt-get")
    monkeypatch.setattr(script.os, "geteuid", lambda: 1000, raising=False)
    with pytest.raises(script.Refused) as refused:
        script.system_packages("libegl1 libgl1", "Qt needs them")
    assert str(refused.value).splitlines()[-1].strip() == (
        "sudo apt-get install --yes --no-install-recommends libegl1 libgl1"
    )


def test_pip_keeps_its_cache_in_the_environment(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PIP_CACHE_DIR", raising=False)
    fake = script.ENVIRONMENT / "python"
    fake.write_text('#!/bin/sh\necho "cache: $PIP_CACHE_DIR"\n')
    fake.chmod(0o700)
    monkeypatch.setattr(script, "PYTHON", fake)
    script.pip("something")
    assert f"cache: {script.ENVIRONMENT / 'pip-cache'}\n" in script.LOG.read_text()


def test_the_program_sees_no_modules_of_the_folder_it_is_called_in(
    script: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[str, ...]] = []
    monkeypatch.setattr(script, "start", lambda *words: started.append(words) or 0)
    script.write_stamp({"window"})
    assert script.run(["status", "--json"]) == 0
    assert started == [("-P", "-m", "superbloom", "status", "--json")]


def test_an_unknown_extra_is_refused(script: ModuleType) -> None:
    with pytest.raises(script.Refused, match="install"):
        script.run(["install", "everything"])
