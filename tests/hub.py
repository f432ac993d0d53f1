"""A stand-in of the Hugging Face hub on this machine: what `create_repo` and `upload_folder` ask of it, and no more.

It takes large files as Git LFS does; HF_HUB_DISABLE_XET=1 makes the client send them so.
"""

import base64
import json
import threading
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

LFS = (".safetensors", ".onnx")


@dataclass
class Hub:
    """`files` of the one repository as they were committed; `calls` in order, `tokens` that came with them."""

    address: str = ""
    repo: dict[str, Any] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    tokens: set[str] = field(default_factory=set)
    objects: dict[str, bytes] = field(default_factory=dict)

    def answer(self, method: str, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
        if method == "PUT":
            self.objects[path.rpartition("/")[2]] = body
            return 200, {}
        if path == "/api/repos/create":
            self.repo = json.loads(body)
            name = f"{self.repo['organization']}/{self.repo['name']}"
            return 200, {"url": f"{self.address}/{name}", "name": name, "id": "1"}
        if path == "/api/validate-yaml":
            return 200, {"errors": [], "warnings": []}
        if "/preupload/" in path:
            kind = {True: "lfs", False: "regular"}
            asked = [file["path"] for file in json.loads(body)["files"]]
            return 200, {
                "files": [{"path": p, "uploadMode": kind[p.endswith(LFS)], "shouldIgnore": False} for p in asked]
            }
        if path.endswith("/info/lfs/objects/batch"):
            return 200, {"transfer": "basic", "objects": [self._place(o) for o in json.loads(body)["objects"]]}
        if "/commit/" in path:
            for line in map(json.loads, body.splitlines()):
                self._commit(line["key"], line["value"])
            repository = path.removeprefix("/api/models").removesuffix("/main")
            return 200, {"commitUrl": f"{self.address}{repository}/1", "commitOid": "1"}
        return 404, {"error": f"{method} {path} is not one of the calls known"}

    def _place(self, wanted: dict[str, Any]) -> dict[str, Any]:
        return {**wanted, "actions": {"upload": {"href": f"{self.address}/lfs/{wanted['oid']}"}}}

    def _commit(self, key: str, value: dict[str, Any]) -> None:
        if key == "file":
            self.files[value["path"]] = base64.b64decode(value["content"])
        elif key == "lfsFile":
            self.files[value["path"]] = self.objects[value["oid"]]


@contextmanager
def running_hub() -> Generator[Hub]:
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def _handle(self) -> None:
            path = self.path.partition("?")[0]
            hub.calls.append(f"{self.command} {path}")
            if self.headers["Authorization"]:
                hub.tokens.add(self.headers["Authorization"])
            body = self.rfile.read(int(self.headers["Content-Length"] or 0))
            status, answer = hub.answer(self.command, path, body)
            data = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        do_GET = do_POST = do_PUT = do_HEAD = _handle  # noqa: N815 - BaseHTTPRequestHandler's names

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.address = f"http://127.0.0.1:{server.server_address[1]}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield hub
    server.shutdown()
