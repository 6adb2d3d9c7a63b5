"""Enough of the hub's protocol on a loopback port: what a repository holds, its files, and its refusals."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class _Hub(BaseHTTPRequestHandler):
    files: Mapping[str, Mapping[str, bytes]]
    asked: list[str]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def log_message(self, *_: object) -> None:
        pass

    def _answer(self, body: bool) -> None:
        path = self.path.split("?")[0]
        self.asked.append(f"{self.command} {path}")
        if len(path.strip("/").split("/")) < 4:
            return self._refuse(404, "EntryNotFound", "Not found")
        repo, revision, name = _parts(path)
        if "private" in repo or repo not in self.files:
            return self._refuse(401, "RepoNotFound", "Invalid username or password.")
        if revision not in ("main", COMMIT):
            return self._refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        held = self.files[repo]
        if name is None:
            found = {"id": repo, "sha": COMMIT, "siblings": [{"rfilename": file} for file in held], "tags": []}
            tree = [{"type": "file", "path": f, "size": len(c), "oid": _etag(c)} for f, c in held.items()]
            return self._send(json.dumps(tree if "/tree/" in path else found).encode(), body, "application/json")
        if "gated" in repo:
            return self._refuse(403, "GatedRepo", f"Access to model {repo} is restricted.")
        if name not in held:
            return self._refuse(404, "EntryNotFound", "Entry not found")
        return self._send(held[name], body, "application/octet-stream")

    def _refuse(self, status: int, code: str, message: str) -> None:
        self.send_response(status)
        self.send_header("X-Error-Code", code)
        self.send_header("X-Error-Message", message)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, content: bytes, body: bool, kind: str) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("ETag", f'"{_etag(content)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(content)


def _etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


def _parts(path: str) -> tuple[str, str, str | None]:
    """(repository, revision, file) of a request; file None where the repository itself is meant."""
    pieces = path.strip("/").split("/")
    if pieces[:2] == ["api", "models"]:
        return "/".join(pieces[2:4]), (pieces[5] if len(pieces) > 5 else "main"), None
    return "/".join(pieces[:2]), pieces[3], "/".join(pieces[4:])


@contextmanager
def hub(files: Mapping[str, Mapping[str, bytes]]) -> Iterator[tuple[str, list[str]]]:
    """Serve `{"owner/name": {file: content}}`; gives the endpoint and the list of requests, which grows."""
    asked: list[str] = []
    handler = type("Hub", (_Hub,), {"files": files, "asked": asked})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
