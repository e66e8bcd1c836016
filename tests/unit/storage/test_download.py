import errno
import hashlib
import threading
from pathlib import Path

import pytest

from superbloom.domain.errors import DiskFull, DownloadFailed, ModelDamaged
from superbloom.storage import fetching
from superbloom.storage.download import Patience, RemoteFile, download
from superbloom.storage.fetching import FetchCancelled, FetchWatch, plain_name, require_room

CONTENT = bytes(range(256)) * 4000
QUICK = Patience(connect=2, silent=0.3, pauses=(0.01, 0.01, 0.01))


@pytest.fixture
def watch():
    return FetchWatch(lambda *_: None)


@pytest.fixture
def remote(hub):
    hub.files["big"] = CONTENT
    return RemoteFile(
        url=f"{hub.url}/files/big",
        size=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
    )


def test_a_file_arrives_whole_with_its_progress(remote, tmp_path, watch):
    seen = []
    digest = download(remote, tmp_path / "f", watch, seen.append, QUICK)
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert digest == remote.sha256
    assert sum(seen) == len(CONTENT)
    assert [item.name for item in tmp_path.iterdir()] == ["f"]


def test_a_transfer_that_is_cut_goes_on_where_it_ended(hub, remote, tmp_path, watch):
    hub.cuts["big"] = [300_000, 400_000]
    seen = []
    download(remote, tmp_path / "f", watch, seen.append, QUICK)
    assert (tmp_path / "f").read_bytes() == CONTENT
    begins = [begin for _, begin in hub.transfers]
    assert begins[0] == 0
    assert 0 < begins[1] < begins[2]
    assert sum(seen) == len(CONTENT)


def test_a_later_call_goes_on_where_a_failed_one_ended(hub, remote, tmp_path, watch):
    hub.cuts["big"] = [300_000]
    with pytest.raises(DownloadFailed):
        download(remote, tmp_path / "f", watch, lambda _: None, Patience(silent=0.3, pauses=()))
    assert not (tmp_path / "f").exists()
    download(remote, tmp_path / "f", watch, lambda _: None, QUICK)
    assert (tmp_path / "f").read_bytes() == CONTENT
    assert hub.transfers[-1][1] > 0


def test_wrong_bytes_are_fetched_anew(hub, remote, tmp_path, watch):
    hub.wrong["big"] = 1
    download(remote, tmp_path / "f", watch, lambda _: None, QUICK)
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_bytes_that_stay_wrong_are_never_taken(hub, remote, tmp_path, watch):
    hub.wrong["big"] = 100
    with pytest.raises(DownloadFailed, match="checksum"):
        download(remote, tmp_path / "f", watch, lambda _: None, QUICK)
    assert not list(tmp_path.iterdir())


def test_a_small_file_is_checked_by_its_git_hash(hub, tmp_path, watch):
    hub.files["small"] = b"hello\n"
    good = "ce013625030ba8dba906f756967f9e9ca394464a"  # git hash-object
    url = f"{hub.url}/files/small"
    download(RemoteFile(url=url, git_hash=good), tmp_path / "f", watch, lambda _: None, QUICK)
    with pytest.raises(DownloadFailed):
        bad = RemoteFile(url=url, git_hash="0" * 40)
        download(bad, tmp_path / "g", watch, lambda _: None, QUICK)


def test_a_server_that_falls_silent_is_given_up(hub, remote, tmp_path, watch):
    hub.stalls.add("big")
    with pytest.raises(DownloadFailed, match=r"silent|ended"):
        download(remote, tmp_path / "f", watch, lambda _: None, Patience(silent=0.2, pauses=()))


def test_a_busy_server_is_asked_again(hub, remote, tmp_path, watch):
    hub.statuses["big"] = [503, 429]
    download(remote, tmp_path / "f", watch, lambda _: None, QUICK)
    assert (tmp_path / "f").read_bytes() == CONTENT


@pytest.mark.parametrize(("status", "words"), [(404, "no such file"), (403, "does not let")])
def test_a_refusal_is_final_and_in_words(hub, remote, tmp_path, status, words):
    watch = FetchWatch(lambda *_: None)
    hub.statuses["big"] = [status]
    with pytest.raises(DownloadFailed, match=words):
        download(remote, tmp_path / "f", watch, lambda _: None, QUICK)


def test_no_network_is_said_in_words(tmp_path, watch):
    gone = RemoteFile(url="http://127.0.0.1:9/x")
    with pytest.raises(DownloadFailed) as caught:
        download(gone, tmp_path / "f", watch, lambda _: None, QUICK)
    assert "connection" in str(caught.value)


def test_cancelling_keeps_what_is_here(hub, remote, tmp_path):
    cancelled = threading.Event()
    watch = FetchWatch(lambda *_: None, cancelled)
    with pytest.raises(FetchCancelled):
        download(remote, tmp_path / "f", watch, lambda count: count and cancelled.set(), QUICK)
    assert (tmp_path / "f.part").stat().st_size > 0
    assert not (tmp_path / "f").exists()


def test_a_disk_that_fills_up_ends_it_and_nothing_counts_as_whole(
    hub, remote, tmp_path, watch, monkeypatch
):
    real = Path.open

    def full(self, mode="r", *args, **kwargs):
        file = real(self, mode, *args, **kwargs)
        if "r" in mode:
            return file

        class Full:
            def __enter__(self):
                return self

            def __exit__(self, *error):
                file.close()

            def write(self, piece):
                file.write(piece[:1000])
                raise OSError(errno.ENOSPC, "No space left on device")

        return Full()

    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", full)
        with pytest.raises(DiskFull) as caught:
            download(remote, tmp_path / "f", watch, lambda _: None, QUICK)
    assert "space" in caught.value.message
    assert caught.value.next_step
    assert not (tmp_path / "f").exists()
    download(remote, tmp_path / "f", watch, lambda _: None, QUICK)
    assert (tmp_path / "f").read_bytes() == CONTENT


def test_room_is_asked_for_before(tmp_path):
    require_room(tmp_path / "not" / "there", 1)
    with pytest.raises(DiskFull, match="are needed"):
        require_room(tmp_path, 10**18)


@pytest.mark.parametrize(
    "name", ["../x", "a/b", "/etc/passwd", "..", ".", "", "a\\b", "C:x", ".hidden", "a\0b", "x."]
)
def test_names_that_lead_out_of_the_folder_are_refused(name):
    with pytest.raises(ModelDamaged):
        plain_name(name)


def test_sizes_read_as_people_write_them():
    assert fetching.in_words(93_000_000) == "93.0 MB"
    assert fetching.in_words(12) == "12 bytes"


def test_more_than_the_file_has_is_not_written(hub, remote, tmp_path, watch):
    hub.files["big"] = CONTENT + bytes(50 * 2**20)
    largest = 0

    def advance(count):
        nonlocal largest
        part = tmp_path / "f.part"
        largest = max(largest, part.stat().st_size if part.exists() else 0)

    with pytest.raises(DownloadFailed, match="more arrives"):
        download(remote, tmp_path / "f", watch, advance, QUICK)
    assert largest <= len(CONTENT)
    assert not list(tmp_path.iterdir())
    assert hub.times("big") == 2


def test_wrong_bytes_are_fetched_once_more_and_no_more(hub, remote, tmp_path, watch):
    hub.wrong["big"] = 100
    with pytest.raises(DownloadFailed, match="checksum"):
        download(remote, tmp_path / "f", watch, lambda _: None, QUICK)
    assert hub.times("big") == 2
