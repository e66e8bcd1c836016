#!/usr/bin/env python3
"""Installs Superbloom beside itself and starts it: the first command anybody types.

python3 installer/run.py                 install what is missing, then open the window
python3 installer/run.py test [ARGS]     install what the tests need, then run them (pytest's ARGS)
python3 installer/run.py install [EXTRA] install only (EXTRA: test or dev)
python3 installer/run.py WORD [ARGS]     any command of `superbloom`, say `chat` or `status`

Everything goes into the folder .venv at the top of this tree, pip's cache too; beside it pip notes
the program in app/superbloom.egg-info. Only as root on Debian or Ubuntu does it change the system:
apt-get installs missing packages. An interrupted run goes on where it stopped; a finished one is
not repeated until pyproject.toml changes.
Standard library only, and its syntax suits older Pythons so that it can name what is missing.
"""

from __future__ import annotations

import errno
import hashlib
import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parent.parent
ENVIRONMENT = ROOT / ".venv"
STAMP = ENVIRONMENT / "superbloom-installed"
LOG = ENVIRONMENT / "install.log"
WINDOWS = os.name == "nt"
PYTHON = ENVIRONMENT / ("Scripts/python.exe" if WINDOWS else "bin/python")

OLDEST, NEWEST = (3, 11), (3, 13)
CPU_BUILDS = "https://download.pytorch.org/whl/cpu"
GIGABYTE = 1_000_000_000

QT_PACKAGES = (
    "libdbus-1-3 libegl1 libfontconfig1 libfreetype6 libgl1 libglib2.0-0 libgssapi-krb5-2 "
    "libx11-xcb1 libxcb-cursor0 libxcb-icccm4 libxcb-image0 libxcb-keysyms1 libxcb-randr0 "
    "libxcb-render-util0 libxcb-shape0 libxcb-shm0 libxcb-sync1 libxcb-xfixes0 libxcb-xkb1 "
    "libxkbcommon-x11-0 libxkbcommon0 fonts-dejavu-core"
)
"""What Qt's window needs of the system, by Debian's names."""

QT_CHECK = """
import ctypes, pathlib, PySide6
from PySide6 import QtWidgets
ctypes.CDLL(str(pathlib.Path(PySide6.__file__).parent / "Qt/plugins/platforms/libqxcb.so"))
"""


class Refused(Exception):
    """The installation cannot go on; the text says why and what to do."""


class DiskFull(Refused):
    """There is no space left."""

    def __init__(self) -> None:
        super().__init__(
            "The disk is full.\n  Free some space and run this again: what is here is kept."
        )


# --- the right Python -----------------------------------------------------------------------


def use_suitable_python() -> None:
    """Start again with a Python we support if this one is not; raises Refused if none is found."""
    if OLDEST <= sys.version_info[:2] <= NEWEST:
        return
    for minor in range(NEWEST[1], OLDEST[1] - 1, -1):
        found = [f"python3.{minor}"] if not WINDOWS else ["py", f"-3.{minor}"]
        if shutil.which(found[0]) and quiet([*found, "-c", ""]):
            raise SystemExit(subprocess.call([*found, __file__, *sys.argv[1:]]))
    have = platform.python_version()
    how = {
        "Darwin": "brew install python@3.12   (or the installer from python.org)",
        "Windows": "winget install Python.Python.3.12",
    }.get(platform.system(), "sudo apt-get install python3.11 python3.11-venv   (or your system's)")
    raise Refused(f"Superbloom needs Python 3.11, 3.12 or 3.13, and this is {have}.\n  {how}")


def check_machine() -> None:
    """Raises Refused on a machine for which some dependency has no build."""
    if platform.system() == "Darwin" and platform.machine() == "x86_64":
        raise Refused("Superbloom needs a Mac with Apple silicon: PyTorch ended Intel Macs.")
    if WINDOWS:
        say("The network part has no Windows build yet: inside WSL 2 everything works.")


# --- the environment ------------------------------------------------------------------------


def install(extra: str, *, window: bool) -> None:
    """Bring .venv to what pyproject.toml asks for; returns at once when it is there already."""
    parts = {part for part in (extra, "window" if window else "") if part}
    if extra == "dev":
        parts.add("test")
    done = installed_parts()
    if done is not None and parts <= done:
        return
    if done is None or not {"test", "dev"} & parts <= done:
        check_machine()
        check_disk()
        make_environment()
        say("Installing (a few minutes the first time; it can be interrupted) ...")
        pip("--upgrade", "pip")
        take_small_torch()
        pip("--editable", f"{ROOT}[{extra}]" if extra else str(ROOT))
        done = (done or set()) | (parts - {"window"})
        write_stamp(done)
        shutil.rmtree(cache(), ignore_errors=True)
    if window and "window" not in done:
        check_window_libraries()
        write_stamp(done | {"window"})


def cache() -> Path:
    """Where pip keeps what it has fetched until all is installed, so that the next run goes on."""
    return ENVIRONMENT / "pip-cache"


def fingerprint() -> str:
    """What the environment was made for: this tree, at this place, by this Python."""
    content = (ROOT / "pyproject.toml").read_bytes()
    made_for = f"{ROOT}\n{platform.python_version()}\n".encode()
    return hashlib.sha256(made_for + content).hexdigest()


def installed_parts() -> set[str] | None:
    """The parts the environment holds, or None if it is absent, unfinished or out of date."""
    if not PYTHON.exists() or not STAMP.exists():
        return None
    made_for, *parts = STAMP.read_text(encoding="utf-8").split()
    return set(parts) if made_for == fingerprint() else None


def write_stamp(parts: set[str]) -> None:
    STAMP.write_text(" ".join([fingerprint(), *sorted(parts)]) + "\n", encoding="utf-8")


def check_disk() -> None:
    """Raises Refused if the packages would not fit."""
    needed = (12 if has_nvidia() and not WINDOWS else 4) * GIGABYTE
    free = shutil.disk_usage(ROOT).free
    if free < needed and not PYTHON.exists():
        raise Refused(
            f"Only {free / GIGABYTE:.1f} GB are free in {ROOT}, and about {needed // GIGABYTE} GB "
            "are needed.\n  Free some space and run this again."
        )


def make_environment() -> None:
    """Make .venv with pip in it; a half-made one is made anew."""
    if PYTHON.exists() and quiet([str(PYTHON), "-P", "-m", "pip", "--version"]):
        return
    if importlib.util.find_spec("ensurepip") is None:
        minor = sys.version_info[1]
        system_packages(f"python3.{minor}-venv", "Python's module for environments is missing")
    say(f"Making the environment {ENVIRONMENT} ...")
    made = subprocess.run(
        [sys.executable, "-P", "-m", "venv", "--clear", str(ENVIRONMENT)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if made.returncode:
        raise Refused(f"The environment could not be made:\n{made.stdout.strip()}")


def has_nvidia() -> bool:
    return shutil.which("nvidia-smi") is not None


def take_small_torch() -> None:
    """On Linux without an NVIDIA GPU, take PyTorch's CPU build: 0.2 GB instead of several.

    A build that pip's own configuration offers on this disk comes first. If neither is to be had,
    the ordinary installation takes the large one.
    """
    if platform.system() != "Linux" or has_nvidia():
        return
    has_torch = "import importlib.util as u, sys; sys.exit(not u.find_spec('torch'))"
    if quiet([str(PYTHON), "-P", "-c", has_torch]):
        return
    from_disk = ("--no-index",)
    from_pytorch = ("--index-url", CPU_BUILDS, "--retries", "1", "--timeout", "15")
    for source in (from_disk, from_pytorch):
        try:
            pip("--no-deps", *source, torch_release())
        except DiskFull:
            raise
        except Refused:
            continue
        return
    say("PyTorch's small CPU build cannot be reached; the large one comes instead.")


def torch_release() -> str:
    """The release that pyproject.toml pins, as pip wants it."""
    found = re.search(r'"(torch==[^"]+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    if not found:
        raise Refused("pyproject.toml names no torch release.")
    return found.group(1)


# --- pip, with its many lines turned into few ------------------------------------------------


def pip(*words: str) -> None:
    """Run `pip install WORDS`; the full output goes to the log. Raises Refused if it fails."""
    command = [str(PYTHON), "-P", "-m", "pip", "install"]
    command += ["--no-input", "--disable-pip-version-check"]
    with LOG.open("a", encoding="utf-8") as log:
        log.write(f"\n$ pip install {shlex.join(words)}\n")
        with subprocess.Popen(
            [*command, *raw_progress(), *words],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env={"PIP_CACHE_DIR": str(cache()), **os.environ},
            text=True,
            encoding="utf-8",
            errors="replace",
        ) as process:
            lines = follow(process, log)
    if process.returncode:
        raise explain(lines)


def raw_progress() -> list[str]:
    """pip's progress in plain lines, from the release on that can do it."""
    found = next(iter(sorted(ENVIRONMENT.glob("**/site-packages/pip-*.dist-info"))), None)
    version = re.match(r"pip-(\d+)\.(\d+)", found.name) if found else None
    can = version and (int(version.group(1)), int(version.group(2))) >= (24, 1)
    return ["--progress-bar", "raw"] if can else []


def follow(process: subprocess.Popen[str], log: TextIO) -> list[str]:
    """Show what pip fetches, one line at a time; returns all its lines."""
    lines: list[str] = []
    current = ""
    assert process.stdout is not None
    for line in process.stdout:
        progress = re.match(r"Progress (\d+) of (\d+)", line)
        if progress:
            done, total = int(progress.group(1)), int(progress.group(2))
            show(f"{current} {done / 1e6:.0f} of {total / 1e6:.0f} MB", passing=True)
            continue
        log.write(line)
        lines.append(line.rstrip())
        fetched = re.match(r"\s*(?:Downloading|Processing) (\S+)(?: \(([\d.]+) (MB|GB)\))?", line)
        if fetched:
            name = re.match(r"[\w.]+-[\w.]+", fetched.group(1).rsplit("/", 1)[-1])
            current = name.group(0) if name else ""
            large = fetched.group(3) == "GB" or float(fetched.group(2) or 0) >= 20
            size = f" ({fetched.group(2)} {fetched.group(3)})" if fetched.group(2) else ""
            show(f"fetching {current}{size}", passing=not large)
        elif line.startswith(("Installing collected", "Building", "Preparing")):
            show(line.split(":")[0].strip().lower(), passing=True)
    show("", passing=True)
    return lines


def show(text: str, *, passing: bool) -> None:
    """One line of progress; a passing one is overwritten, and not shown outside a terminal."""
    terminal = sys.stdout.isatty()
    if passing and terminal:
        width = shutil.get_terminal_size().columns - 4
        print(f"\r\033[K  {text[:width]}" if text else "\r\033[K", end="", flush=True)
    elif not passing:
        print(f"\r\033[K  {text}" if terminal else f"  {text}", flush=True)


def explain(lines: list[str]) -> Refused:
    """Why pip failed, in a sentence, with the next step."""
    text = "\n".join(lines)
    if "No space left on device" in text:
        return DiskFull()
    offline = (
        "NewConnectionError|name resolution|ConnectTimeout|ReadTimeout|ConnectionReset|Max retries"
    )
    if re.search(offline, text):
        return Refused(
            "The package index cannot be reached.\n"
            "  Check the connection (or pip's proxy settings) and run this again."
        )
    last = "\n".join(f"    {line}" for line in lines[-12:])
    return Refused(f"pip failed; its last words were:\n{last}\n  Everything it said is in {LOG}")


# --- the system's libraries -----------------------------------------------------------------


def check_window_libraries() -> None:
    """On Linux, see that Qt finds its system libraries; install them, or say how."""
    if platform.system() != "Linux" or quiet([str(PYTHON), "-P", "-c", QT_CHECK]):
        return
    system_packages(QT_PACKAGES, "Qt's window needs libraries of the system that are missing")
    checked = subprocess.run(
        [str(PYTHON), "-P", "-c", QT_CHECK], capture_output=True, text=True, check=False
    )
    if checked.returncode:
        last = checked.stderr.strip().splitlines()[-1]
        raise Refused(f"Qt's window cannot start here:\n  {last}")


def system_packages(packages: str, why: str) -> None:
    """Install Debian packages when root; otherwise raises Refused with the line to run."""
    line = "apt-get install --yes --no-install-recommends " + packages
    if not shutil.which("apt-get"):
        raise Refused(f"{why}.\n  Install what Debian calls: {packages}")
    if os.geteuid() != 0:
        raise Refused(f"{why}. Run this line, then this program again:\n  sudo {line}")
    say(f"{why}; apt-get installs it now ...")
    surroundings = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for command in ("apt-get update", line):
        done = subprocess.run(
            command.split(), env=surroundings, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Refused(f"`{command}` failed:\n{(done.stdout + done.stderr).strip()[-1500:]}")


def quiet(command: list[str]) -> bool:
    """Whether a command succeeds; its output is dropped."""
    nowhere = subprocess.DEVNULL
    return subprocess.call(command, stdin=nowhere, stdout=nowhere, stderr=nowhere) == 0


# --- what to do -----------------------------------------------------------------------------


def has_display() -> bool:
    if platform.system() != "Linux":
        return True
    return bool(os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"))


def start(*words: str) -> int:
    """Hand over to Python in the environment; returns its exit code where it cannot be replaced."""
    command = [str(PYTHON), *words]
    sys.stdout.flush()
    if WINDOWS:
        return subprocess.call(command)
    os.execv(command[0], command)


def start_program(*words: str) -> int:
    """Hand over to `superbloom WORDS`; -P keeps out the modules of the folder it is called in."""
    return start("-P", "-m", "superbloom", *words)


def open_window() -> int:
    """Open the window; without a display, the chat in the terminal."""
    if has_display():
        install("", window=True)
        return start_program()
    install("", window=False)
    if sys.stdin.isatty():
        say("There is no display here, so the chat opens in this terminal.")
        return start_program("chat")
    say("Installed. There is no display here for the window; chat in a terminal with:")
    print(f"  {shlex.quote(sys.executable)} {shlex.quote(sys.argv[0])} chat")
    return 0


def run(words: list[str]) -> int:
    """Do what the words on the command line ask for; returns the exit code."""
    if not words:
        return open_window()
    if words[0] in {"-h", "--help"}:
        print(__doc__.strip())
        return 0
    if words[0] == "install":
        if words[1:] not in ([], ["test"], ["dev"]):
            raise Refused("`install` takes nothing, `test` or `dev`.")
        install(words[1] if words[1:] else "", window=bool(words[1:]) or has_display())
        say("Installed.")
        return 0
    if words[0] == "test":
        install("test", window=True)
        os.chdir(ROOT)
        return start("-m", "pytest", *words[1:])
    install("", window=words[0] == "window")
    return start_program(*words)


def say(text: str) -> None:
    print(text, flush=True)


def main() -> int:
    """Exit code 0 when done, 1 with a sentence on stderr, 130 on Ctrl-C."""
    try:
        use_suitable_python()
        return run(sys.argv[1:])
    except Refused as refusal:
        print(f"\n{refusal}", file=sys.stderr)
        return 1
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        print(f"\n{DiskFull()}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\nInterrupted. Run it again to go on.", file=sys.stderr)
        return 130


if __name__ == "__main__":
    raise SystemExit(main())
