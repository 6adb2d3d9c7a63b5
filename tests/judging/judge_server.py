"""A judge on loopback that answers as told, and fails, stalls and talks rubbish when told to. A real HTTP server."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.loopback import QuietHandler, served

Misbehaviour = Callable[[BaseHTTPRequestHandler], None]


class JudgeServer:
    """`reply` makes the text of a reply out of a prompt. Each request takes one entry off `misbehave` first.

    `requests` records (Authorization header, body) of every request.
    """

    def __init__(self) -> None:
        self.reply: Callable[[str], str] = lambda prompt: "A"
        self.misbehave: list[Misbehaviour] = []
        self.requests: list[tuple[str, dict[str, Any]]] = []
        self.url = ""
        self.most_at_once = 0


def status(code: int, text: str = "", **headers: str) -> Misbehaviour:
    """Answer with a status and a text."""

    def act(handler: BaseHTTPRequestHandler) -> None:
        body = text.encode()
        handler.send_response(code)
        for name, value in headers.items():
            handler.send_header(name.replace("_", "-"), value)
        handler.send_header("Content-Length", str(len(body)))
        handler.end_headers()
        handler.wfile.write(body)

    return act


def rubbish(text: str) -> Misbehaviour:
    """200, and a body that is no completion."""
    return status(200, text)


def stall(seconds: float) -> Misbehaviour:
    """Say nothing for a while, then hang up."""

    def act(handler: BaseHTTPRequestHandler) -> None:
        time.sleep(seconds)
        handler.close_connection = True

    return act


def drip(seconds: float) -> Misbehaviour:
    """Announce a reply and send it a byte at a time."""

    def act(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", "100000")
        handler.end_headers()
        end = time.monotonic() + seconds
        handler.close_connection = True
        try:
            while time.monotonic() < end:
                handler.wfile.write(b" ")
                handler.wfile.flush()
                time.sleep(0.02)
        except OSError:
            pass  # the client has had enough

    return act


def hang_up(handler: BaseHTTPRequestHandler) -> None:
    """Close the connection without a word."""
    handler.close_connection = True


@contextmanager
def judge_server() -> Iterator[JudgeServer]:
    state = JudgeServer()
    lock = threading.Lock()
    busy = [0]

    class Handler(QuietHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                busy[0] += 1
                state.most_at_once = max(state.most_at_once, busy[0])
                state.requests.append((self.headers.get("Authorization", ""), body))
                act = state.misbehave.pop(0) if state.misbehave else None
            try:
                if act is not None:
                    act(self)
                elif not self.path.endswith("/v1/chat/completions"):
                    status(404, "no such page")(self)
                else:
                    text = state.reply(body["messages"][0]["content"])
                    status(200, json.dumps({"choices": [{"message": {"content": text}}]}))(self)
            finally:
                with lock:
                    busy[0] -= 1

    with served(Handler) as address:
        state.url = f"{address}/v1"
        yield state
