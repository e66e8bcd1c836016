import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from superbloom.domain.errors import DownloadFailed, ModelDamaged, ModelUnsupported
from superbloom.domain.model_card import HubSource
from superbloom.storage.download import Patience
from superbloom.storage.fetching import FetchCancelled, FetchWatch
from superbloom.storage.hub import fetch_from_hub, read_weight_map
from superbloom.storage.model_files import FolderState, ModelFolder

SOURCE = HubSource("maker/model")
QUICK = Patience(connect=2, silent=0.3, pauses=(0.01,))


@pytest.fixture
def folder(tmp_path):
    return ModelFolder("m", tmp_path / "m")


@pytest.fixture
def watch():
    return FetchWatch(lambda *_: None)


def everything(weight_map):
    return set(weight_map.values())


def block(number):
    return lambda weight_map: {"ends.safetensors", f"b{number}.safetensors"}


def test_all_of_a_model_arrives_and_no_more_than_a_model(hub, make_weights, folder):
    hub.repositories["maker/model"] = make_weights(3)
    seen = []
    fetch_from_hub(SOURCE, folder, everything, FetchWatch(lambda *told: seen.append(told)), QUICK)
    assert folder.state() is FolderState.READY
    assert not (folder.path / "README.md").exists()
    assert (folder.path / "b1.safetensors").read_bytes() == b"\2" * 5000
    assert folder.require_manifest().revision == hub.revision
    done, total, _ = seen[-1]
    assert done == total == 4 * 5000


def test_only_the_shards_of_the_wanted_blocks_are_fetched_and_later_the_rest(
    hub, make_weights, folder, watch
):
    hub.repositories["maker/model"] = make_weights(3)
    fetch_from_hub(SOURCE, folder, block(1), watch, QUICK)
    assert folder.state() is FolderState.PARTIAL
    assert folder.holds({"ends.safetensors", "b1.safetensors", "config.json"})
    assert hub.times("b0.safetensors") == hub.times("b2.safetensors") == 0
    fetch_from_hub(SOURCE, folder, everything, watch, QUICK)
    assert folder.state() is FolderState.READY
    assert hub.times("b1.safetensors") == hub.times("config.json") == 1


def test_a_broken_fetch_goes_on_where_it_ended(hub, make_weights, folder, watch):
    hub.repositories["maker/model"] = make_weights(2, size=400_000)
    hub.cuts["b1.safetensors"] = [300_000, 0, 0]
    with pytest.raises(DownloadFailed):
        fetch_from_hub(SOURCE, folder, everything, watch, QUICK)
    assert folder.state() is FolderState.PARTIAL
    fetch_from_hub(SOURCE, folder, everything, watch, QUICK)
    assert folder.state() is FolderState.READY
    assert hub.times("b0.safetensors") == 1
    assert hub.transfers[-1] == ("ends.safetensors", 0)
    assert max(begin for name, begin in hub.transfers if name == "b1.safetensors") >= 200_000


def test_a_fetch_goes_on_at_the_commit_it_began_with(hub, make_weights, folder, watch):
    hub.repositories["maker/model"] = make_weights(2)
    fetch_from_hub(SOURCE, folder, block(0), watch, QUICK)
    first = hub.revision
    fetch_from_hub(SOURCE, folder, everything, watch, QUICK)
    assert folder.require_manifest().revision == first


def test_damaged_files_are_mended(hub, make_weights, folder, watch):
    hub.repositories["maker/model"] = make_weights(2)
    fetch_from_hub(SOURCE, folder, everything, watch, QUICK)
    (folder.path / "b0.safetensors").write_bytes(b"?" * 5000)
    assert folder.verify(watch) == ("b0.safetensors",)
    fetch_from_hub(SOURCE, folder, everything, watch, QUICK)
    assert folder.state() is FolderState.READY
    assert folder.verify(watch) == ()
    assert hub.times("b1.safetensors") == 1


def test_one_file_of_weights_needs_no_index(hub, folder, watch):
    hub.repositories["maker/model"] = {"config.json": b"{}", "model.safetensors": b"w" * 10}
    fetch_from_hub(SOURCE, folder, everything, watch, QUICK)
    assert folder.state() is FolderState.READY


def test_pickles_are_refused_in_words(hub, folder, watch):
    hub.repositories["maker/model"] = {"config.json": b"{}", "pytorch_model.bin": b"cos\nsystem"}
    with pytest.raises(ModelUnsupported, match="pickles"):
        fetch_from_hub(SOURCE, folder, everything, watch, QUICK)
    assert hub.times("pytorch_model.bin") == 0


@pytest.mark.parametrize("name", ["../../evil.safetensors", "/etc/x.safetensors", "a/b"])
def test_an_index_that_names_files_elsewhere_is_refused(hub, folder, watch, name):
    index = f'{{"weight_map": {{"w": "{name}"}}}}'.encode()
    files = {"config.json": b"{}", "model.safetensors.index.json": index}
    hub.repositories["maker/model"] = files
    with pytest.raises(ModelDamaged):
        fetch_from_hub(SOURCE, folder, everything, watch, QUICK)


@pytest.mark.parametrize("index", [b"", b"[]", b'{"weight_map": 3}', b'{"weight_map": {"a": 1}}'])
def test_an_index_that_is_none_is_refused(tmp_path, index):
    (tmp_path / "model.safetensors.index.json").write_bytes(index)
    with pytest.raises(ModelDamaged):
        read_weight_map(tmp_path)


def test_an_unknown_repository_is_said_in_words(hub, folder, watch):
    with pytest.raises(DownloadFailed, match="no model"):
        fetch_from_hub(SOURCE, folder, everything, watch, QUICK)
    assert folder.state() is FolderState.ABSENT


def test_no_network_is_said_in_words(folder, watch, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(DownloadFailed) as caught:
        fetch_from_hub(SOURCE, folder, everything, watch, QUICK)
    assert "cannot be reached" in caught.value.message
    assert "connection" in caught.value.next_step


def test_cancelling_keeps_the_files_that_are_whole(hub, make_weights, folder):
    hub.repositories["maker/model"] = make_weights(2)
    watch = FetchWatch(lambda *_: None)

    def stop_at_weights(done, total, words):
        if words == "Fetching the weights":
            watch.cancelled.set()

    watch.tell = stop_at_weights
    with pytest.raises(FetchCancelled):
        fetch_from_hub(SOURCE, folder, everything, watch, QUICK)
    assert folder.state() is FolderState.PARTIAL
    assert folder.holds({"config.json"})


@pytest.mark.parametrize("page", ["<html>Please sign in</html>", "[]", "{}", "null", '"x"'])
def test_a_page_in_the_hubs_place_is_no_hub(folder, watch, monkeypatch, page):
    class Portal(BaseHTTPRequestHandler):
        def log_message(self, *_):
            pass

        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(page)))
            self.end_headers()
            self.wfile.write(page.encode())

    with ThreadingHTTPServer(("127.0.0.1", 0), Portal) as server:
        threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
        with pytest.raises(DownloadFailed, match="cannot be reached"):
            fetch_from_hub(SOURCE, folder, everything, watch, QUICK)
        server.shutdown()
    assert folder.state() is FolderState.ABSENT
