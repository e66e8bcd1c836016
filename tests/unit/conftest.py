"""A hub on loopback: enough of the hub's and the package index's HTTP for downloads."""

from __future__ import annotations

import hashlib
import json
import threading
from collections import defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

import pytest


class HubServer:
    """Repositories by name, and what should go wrong with which file.

    `cuts[file]` are byte counts after which a transfer breaks off, `wrong[file]` how many transfers
    bring other bytes, `statuses[file]` answers instead of the file; each is used up. A file in
    `stalls` stops after its first bytes until `release` is set.
    """

    def __init__(self) -> None:
        self.repositories: dict[str, dict[str, bytes]] = {}
        self.revision = "c0ffee" + "0" * 34
        self.pages: dict[str, object] = {}
        self.files: dict[str, bytes] = {}
        self.cuts: dict[str, list[int]] = defaultdict(list)
        self.wrong: dict[str, int] = defaultdict(int)
        self.statuses: dict[str, list[int]] = defaultdict(list)
        self.stalls: set[str] = set()
        self.release = threading.Event()
        self.stalled = threading.Event()
        self.transfers: list[tuple[str, int]] = []
        """(file, first byte) of every transfer."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def close(self) -> None:
        self.release.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(10)

    def times(self, file: str) -> int:
        return sum(name == file for name, _ in self.transfers)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def log_message(self, *args: object) -> None:
                pass

            def do_GET(self) -> None:
                path = urlsplit(self.path).path
                parts = path.strip("/").split("/")
                if path in hub.pages:
                    self._json(hub.pages[path])
                elif parts[:2] == ["api", "models"] and parts[4:5] == ["revision"]:
                    self._listing("/".join(parts[2:4]), parts[5])
                elif len(parts) == 5 and parts[2] == "resolve":
                    self._file(hub.repositories.get("/".join(parts[:2]), {}), parts[4])
                elif parts[0] == "files":
                    self._file(hub.files, parts[1])
                else:
                    self.send_error(404)

            def _json(self, value: object, status: int = 200) -> None:
                body = json.dumps(value).encode()
                self.send_response(status)
                simple = self.path.startswith("/simple/")
                kind = "application/vnd.pypi.simple.v1+json" if simple else "application/json"
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def _listing(self, repository: str, revision: str) -> None:
                files = hub.repositories.get(repository)
                if files is None or revision not in ("main", hub.revision):
                    self.send_response(404)
                    self.send_header("X-Error-Code", "RepoNotFound")
                    self.send_header("Content-Length", "0")
                    self.end_headers()
                    return
                siblings = []
                for name, content in files.items():
                    item = {"rfilename": name, "size": len(content)}
                    if name.endswith(".safetensors"):
                        digest = hashlib.sha256(content).hexdigest()
                        item["lfs"] = {"size": len(content), "sha256": digest, "pointerSize": 1}
                        item["blobId"] = "0" * 40
                    else:
                        blob = f"blob {len(content)}\0".encode() + content
                        item["blobId"] = hashlib.sha1(blob, usedforsecurity=False).hexdigest()
                    siblings.append(item)
                self._json({"id": repository, "sha": hub.revision, "siblings": siblings})

            def _file(self, files: dict[str, bytes], name: str) -> None:
                if hub.statuses[name]:
                    self.send_error(hub.statuses[name].pop(0))
                    return
                if name not in files:
                    self.send_error(404)
                    return
                content = files[name]
                if hub.wrong[name]:
                    hub.wrong[name] -= 1
                    content = bytes(len(content))
                begin = 0
                asked = self.headers.get("Range")
                if asked:
                    begin = int(asked.removeprefix("bytes=").split("-")[0])
                if begin >= len(content) > 0:
                    self.send_error(416)
                    return
                hub.transfers.append((name, begin))
                self.send_response(206 if begin else 200)
                self.send_header("Content-Length", str(len(content) - begin))
                self.end_headers()
                piece = content[begin:]
                if hub.cuts[name]:
                    self.wfile.write(piece[: hub.cuts[name].pop(0)])
                    self.close_connection = True
                elif name in hub.stalls:
                    self.wfile.write(piece[:100])
                    self.wfile.flush()
                    hub.stalled.set()
                    hub.release.wait(30)
                else:
                    self.wfile.write(piece)

        return Handler


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    server = HubServer()
    monkeypatch.setenv("HF_ENDPOINT", server.url)
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "1")
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
    yield server
    server.close()


def weights_of(blocks: int, size: int = 5000) -> dict[str, bytes]:
    """A repository's files: one shard a block and one for the ends, not readable as tensors."""
    shards = {f"b{block}.safetensors": bytes([block + 1]) * size for block in range(blocks)}
    names = {f"model.layers.{block}.w": f"b{block}.safetensors" for block in range(blocks)}
    names["model.embed_tokens.weight"] = "ends.safetensors"
    return {
        "config.json": json.dumps({"model_type": "llama"}).encode(),
        "tokenizer.json": b"{}",
        "README.md": b"# a model",
        "model.safetensors.index.json": json.dumps({"weight_map": names}).encode(),
        "ends.safetensors": b"e" * size,
        **shards,
    }


@pytest.fixture
def make_weights():
    return weights_of
