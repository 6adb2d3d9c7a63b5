"""The HTTP client against a real server that also fails, stalls and returns rubbish."""

from __future__ import annotations

import socket
import time
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from vlmeval.errors import JudgeError, NoReplyError, UsageError
from vlmeval.judging.endpoint import Endpoint, EndpointSettings, base_url_from_environment, key_from_environment

from .judge_server import JudgeServer, Misbehaviour, drip, hang_up, rubbish, stall, status

KEY = "sk-verysecret-0123456789"


def endpoint(url: str, **changes: Any) -> Endpoint:
    quick: dict[str, Any] = {"timeout_s": 0.3, "attempts": 3, "first_wait_s": 0.01, "longest_wait_s": 0.2}
    return Endpoint(EndpointSettings(base_url=url, model="judge-1", key=KEY, **{**quick, **changes}))


def test_a_question_is_asked_as_the_interface_wants_it(server: JudgeServer) -> None:
    server.reply = lambda prompt: prompt.upper() + " 中文"
    assert endpoint(server.url, arguments={"max_tokens": None, "seed": 1}).ask("ping") == "PING 中文"
    header, body = server.requests[0]
    assert header == f"Bearer {KEY}"
    assert body == {
        "model": "judge-1",
        "messages": [{"role": "user", "content": "ping"}],
        "temperature": 0,
        "seed": 1,
    }


PASSING = {
    "500": status(500, "oops"),
    "503": status(503),
    "429": status(429, "slow down", Retry_After="0.05"),
    "429 with a date": status(429, "", Retry_After="Wed, 21 Oct 2026 07:28:00 GMT"),
    "hangs up": hang_up,
    "stalls": stall(0.6),
    "drips": drip(1.0),
    "html": rubbish("<html>gateway</html>"),
    "no choices": rubbish('{"choices": []}'),
    "null": rubbish('{"choices": [{"message": {"content": null}}]}'),
    "blank": rubbish('{"choices": [{"message": {"content": "  "}}]}'),
    "a list": rubbish("[1, 2]"),
    "deep": rubbish("[" * 100_000),
    "empty": rubbish(""),
}


@pytest.mark.parametrize("act", PASSING.values(), ids=PASSING)
def test_what_may_pass_is_tried_again(server: JudgeServer, act: Misbehaviour) -> None:
    server.misbehave = [act, act]
    assert endpoint(server.url).ask("q") == "A"
    assert len(server.requests) == 3


@pytest.mark.parametrize("act", [status(500, f"your key {KEY} is fine"), rubbish(f"<html>{KEY}"), stall(0.6)])
def test_what_does_not_pass_is_told_without_the_key(server: JudgeServer, act: Misbehaviour) -> None:
    server.misbehave = [act] * 3
    with pytest.raises(NoReplyError, match="no reply in 3 attempts") as caught:
        endpoint(server.url).ask("q")
    assert KEY not in str(caught.value)
    assert caught.value.__cause__ is None


def test_retry_after_is_waited_for_but_not_forever(server: JudgeServer) -> None:
    server.misbehave = [status(429, "", Retry_After="0.15"), status(429, "", Retry_After="86400")]
    start = time.monotonic()
    endpoint(server.url).ask("q")
    assert time.monotonic() - start > 0.34


@pytest.mark.parametrize(
    ("act", "said"),
    [
        (status(401, f"Incorrect API key provided: {KEY}"), "HTTP 401.*VLMEVAL_JUDGE_KEY or OPENAI_API_KEY"),
        (status(403, "sk-very************6789"), "HTTP 403"),
        (status(404, "model judge-1 not found"), "HTTP 404.*check --judge-base-url"),
        (status(307, "", Location="http://elsewhere/v1?key=1"), "redirects to http://elsewhere/v1:"),
    ],
)
def test_what_will_never_work_is_told_after_one_request(server: JudgeServer, act: Misbehaviour, said: str) -> None:
    server.misbehave = [act]
    with pytest.raises(JudgeError, match=said) as caught:
        endpoint(server.url).ask("q")
    assert not isinstance(caught.value, NoReplyError)
    assert "sk-very" not in str(caught.value)
    assert len(server.requests) == 1


@pytest.mark.parametrize("code", [400, 413, 422])
def test_a_question_the_server_will_not_take_is_not_asked_again(server: JudgeServer, code: int) -> None:
    server.misbehave = [status(code, "content filter")]
    with pytest.raises(NoReplyError, match=f"HTTP {code}: content filter"):
        endpoint(server.url).ask("q")
    assert len(server.requests) == 1


def announced(size: int) -> Misbehaviour:
    """The head of a huge reply, and nothing of it."""

    def act(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(200)
        handler.send_header("Content-Length", str(size))
        handler.end_headers()
        handler.close_connection = True

    return act


def test_a_huge_reply_is_not_fetched(server: JudgeServer) -> None:
    server.misbehave = [announced(10_485_760)] * 3
    with pytest.raises(NoReplyError, match=r"the last: a reply of 10\.0 MiB"):
        endpoint(server.url).ask("q")


def test_a_date_to_come_back_at_is_understood(server: JudgeServer) -> None:
    told: list[str] = []
    server.misbehave = [status(429, "", Retry_After=formatdate(time.time() + 3600, usegmt=True))]
    asker = endpoint(server.url, longest_wait_s=0.6)
    asker.on_retry = told.append
    assert asker.ask("q") == "A"
    assert told == ["judge judge-1: HTTP 429: no text; asked again in 1 s (attempt 2 of 3)"]


def test_the_first_waits_are_told_as_they_begin(server: JudgeServer) -> None:
    told: list[str] = []
    server.misbehave = [status(503, "busy")] * 5
    asker = endpoint(server.url, attempts=6)
    asker.on_retry = told.append
    asker.ask("q")
    assert [line.partition("(")[2] for line in told] == ["attempt 2 of 6)", "attempt 3 of 6)", "attempt 4 of 6)"]
    assert all("HTTP 503: busy" in line for line in told)


def test_nobody_there_is_told(server: JudgeServer) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}/v1"
    with pytest.raises(NoReplyError, match="connection refused"):
        endpoint(url).ask("q")


def test_a_netrc_does_not_replace_the_key(server: JudgeServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login x password y\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    endpoint(server.url).ask("q")
    assert server.requests[0][0] == f"Bearer {KEY}"


@pytest.mark.parametrize(
    "url",
    [
        "api.openai.com",
        "ftp://x/v1",
        "https://user:secret@host/v1",
        "https://h/v1?key=secret",
        "me:secret@h/v1?k=secret",
    ],
)
def test_an_address_that_cannot_be_is_refused_without_repeating_secrets(url: str) -> None:
    with pytest.raises(UsageError) as caught:
        EndpointSettings(base_url=url, model="m")
    assert "secret" not in str(caught.value)
    assert "'://" not in str(caught.value)


def test_the_key_is_in_no_representation_of_the_settings() -> None:
    settings = EndpointSettings(base_url="http://example.org/v1", model="m", key=KEY)
    assert KEY not in repr(settings) + Endpoint(settings).identity
    assert settings.sends_key_in_clear
    assert not EndpointSettings(base_url="http://127.0.0.1:1/v1", model="m", key=KEY).sends_key_in_clear


def test_a_key_with_a_line_break_is_refused_without_repeating_it() -> None:
    with pytest.raises(UsageError) as caught:
        EndpointSettings(base_url="http://127.0.0.1/v1", model="m", key=f"{KEY}\nX: y")
    assert KEY not in str(caught.value)


def test_key_and_address_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    assert key_from_environment() == ""
    assert base_url_from_environment() == "https://api.openai.com/v1"
    monkeypatch.setenv("OPENAI_API_KEY", "a")
    monkeypatch.setenv("VLMEVAL_JUDGE_KEY", " b\n")
    monkeypatch.setenv("OPENAI_API_BASE", "http://127.0.0.1:8000/v1/chat/completions")
    assert key_from_environment() == "b"
    settings = EndpointSettings(base_url=base_url_from_environment(), model="m")
    assert settings.url == "http://127.0.0.1:8000/v1/chat/completions"
