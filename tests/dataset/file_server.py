"""A real HTTP server on loopback that serves files with ranges, and misbehaves when told to."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager

from tests.loopback import QuietHandler, served


class FileServer:
    """`files` by path. Each request takes one entry off `cuts` (bytes after which the connection breaks) and off
    `statuses` (answered instead of the file); `requests` records (path, Range header)."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.cuts: list[int] = []
        self.statuses: list[int] = []
        self.ranges = True
        self.claimed_length: int | None = None
        self.delay_s = 0.0
        self.requests: list[tuple[str, str]] = []
        self.url = ""


@contextmanager
def serving() -> Iterator[FileServer]:
    state = FileServer()

    class Handler(QuietHandler):
        def do_GET(self) -> None:
            wanted = self.headers.get("Range", "")
            state.requests.append((self.path, wanted))
            if state.statuses:
                self._status(state.statuses.pop(0))
            elif self.path not in state.files:
                self._status(404)
            else:
                time.sleep(state.delay_s)
                self._file(state.files[self.path], wanted)

        def _status(self, status: int, content_range: str = "") -> None:
            self.send_response(status)
            if content_range:
                self.send_header("Content-Range", content_range)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def _file(self, content: bytes, wanted: str) -> None:
            found = re.fullmatch(r"bytes=(\d+)-", wanted) if state.ranges else None
            start = int(found[1]) if found else 0
            if found and start >= len(content):
                return self._status(416, f"bytes */{len(content)}")
            self.send_response(206 if found else 200)
            if found:
                self.send_header("Content-Range", f"bytes {start}-{len(content) - 1}/{len(content)}")
            self.send_header("Content-Length", str(state.claimed_length or len(content) - start))
            self.end_headers()
            cut = state.cuts.pop(0) if state.cuts else None
            self.wfile.write(content[start:] if cut is None else content[start : start + cut])
            if cut is not None:
                self.wfile.flush()
                self.connection.close()
            self.close_connection = True
            return None

    with served(Handler) as address:
        state.url = address
        yield state
