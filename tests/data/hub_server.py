"""A stand-in for the hub: serves a few repositories by the requests that ``huggingface_hub`` makes."""

from __future__ import annotations

import hashlib
import json
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class HubHandler(BaseHTTPRequestHandler):
    """Answers for ``repositories``: name -> {path: bytes}, or name -> error code such as ``GatedRepo``."""

    repositories: dict[str, dict[str, bytes] | str]
    requests_seen: list[str]

    def log_message(self, *args):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        self.requests_seen.append(f"{self.command} {path}")
        if path == "/":
            return self.send(200, b"", {}, body)
        place = path.removeprefix("/api").removeprefix("/datasets").removeprefix("/models").removeprefix("/")
        name = "/".join(place.split("/")[:2])
        repository = self.repositories.get(name, "RepoNotFound")
        if isinstance(repository, str):
            status = 403 if repository == "GatedRepo" else 404
            return self.send(status, b"{}", {"X-Error-Code": repository, "X-Error-Message": repository}, body)
        rest = path.split(name, 1)[1].strip("/")
        action, _, rest = (rest or "revision/main").partition("/")
        if not rest.startswith((COMMIT, "main", "refs/convert/parquet")):
            return self.send(404, b"{}", {"X-Error-Code": "RevisionNotFound"}, body)
        if action == "revision":
            info = {"id": name, "sha": COMMIT, "siblings": [{"rfilename": file} for file in repository]}
            return self.send(200, json.dumps(info).encode(), {"Content-Type": "application/json"}, body)
        if action == "tree":
            tree = [
                {"type": "file", "path": file, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}
                for file, data in repository.items()
            ]
            return self.send(200, json.dumps(tree).encode(), {"Content-Type": "application/json"}, body)
        file = rest.removeprefix(COMMIT).removeprefix("main").strip("/")
        if action != "resolve" or file not in repository:
            return self.send(404, b"", {"X-Error-Code": "EntryNotFound"}, body)
        data = repository[file]
        headers = {"X-Repo-Commit": COMMIT, "ETag": f'"{hashlib.sha1(data).hexdigest()}"', "Accept-Ranges": "bytes"}
        return self.send(200, data, headers, body)

    def send(self, status: int, data: bytes, headers: dict[str, str], body: bool) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if body:
            self.wfile.write(data)


def make_server(repositories: dict[str, dict[str, bytes] | str]) -> ThreadingHTTPServer:
    """Return a server on a free port of this machine; ``server.requests_seen`` lists what it was asked."""
    seen: list[str] = []
    handler = type("Handler", (HubHandler,), {"repositories": repositories, "requests_seen": seen})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.requests_seen = seen
    return server
