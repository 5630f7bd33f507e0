"""A Hugging Face Hub on this machine that takes commits: what huggingface_hub asks of the real one, over HTTP.

https://huggingface.co/docs/hub/api
"""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass
class Hub:
    """What was asked of the server, and what it holds.

    Attributes:
        refuse: an HTTP status and a sentence with which it answers every request to make a repository.
        made: the requests to make one.
        files: committed, by repository and name.
        messages: of the commits.
    """

    endpoint: str = ""
    refuse: tuple[int, str] | None = None
    made: list[dict[str, Any]] = field(default_factory=list)
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    messages: list[str] = field(default_factory=list)


@contextmanager
def hub_server() -> Iterator[Hub]:
    """A Hub that answers until the block ends."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status, answer = _answer(hub, self.path, body)
            content = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            if status >= 400:
                self.send_header("X-Error-Message", str(answer["error"]))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            pass  # tests say what they find themselves

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _answer(hub: Hub, path: str, body: bytes) -> tuple[int, dict[str, Any]]:
    if path == "/api/repos/create":
        if hub.refuse is not None:
            return hub.refuse[0], {"error": hub.refuse[1]}
        wanted = json.loads(body)
        hub.made.append(wanted)
        name = f"{wanted['organization']}/{wanted['name']}"
        prefix = "spaces/" if wanted.get("type") == "space" else ""
        return 200, {"url": f"{hub.endpoint}/{prefix}{name}", "name": name, "id": name}
    if path == "/api/validate-yaml":
        return 200, {"errors": [], "warnings": []}
    _, _, kind, owner, name, action, *_ = path.split("/")
    if action == "preupload":
        files = [
            {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False} for file in json.loads(body)["files"]
        ]
        return 200, {"files": files}
    if action == "commit":
        place = hub.files.setdefault(f"{kind}/{owner}/{name}", {})
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "header":
                hub.messages.append(line["value"]["summary"])
            else:
                place[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        return 200, {
            "success": True,
            "commitOid": "0" * 40,
            "commitUrl": f"{hub.endpoint}/{owner}/{name}/commit/{'0' * 40}",
            "hookOutput": "",
        }
    return 404, {"error": f"no such address: {path}"}
