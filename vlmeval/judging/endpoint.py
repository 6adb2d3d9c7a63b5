"""A judge behind an OpenAI-compatible endpoint: `POST {base_url}/chat/completions`.

Source: https://platform.openai.com/docs/api-reference/chat/create; vLLM, SGLang, Ollama and others serve the same.
What may pass is tried again with growing waits: cut and refused connections, stalls, 408, 409, 429 and 5xx (with the
server's `Retry-After`), and replies that are no completion. The key comes from the environment, goes into one header,
and is taken out of everything that is printed. Redirects are not followed: the key is for this server.
"""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from vlmeval.errors import JudgeError, MissingPackageError, NoReplyError, RefusedError, UsageError

if TYPE_CHECKING:
    from requests import PreparedRequest, Response, Session

KEY_VARIABLES = ("VLMEVAL_JUDGE_KEY", "OPENAI_API_KEY")
DEFAULT_BASE_URL = "https://api.openai.com/v1"
MAX_REPLY_BYTES = 2**20
CONNECT_TIMEOUT_S = 10.0
TOLD_RETRIES = 3
"""Of a judge in trouble the first lines tell enough; the counts stand in the result."""
PASSING = frozenset({408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529})
ABOUT_THE_QUESTION = frozenset({400, 413, 422})
"""It is this question the server will not take: too long, or filtered."""
_KEY_LIKE = re.compile(r"\b(?:sk|key|gsk|hf)[-_][A-Za-z0-9_\-*]{6,}")


@dataclass(frozen=True, kw_only=True)
class EndpointSettings:
    """Where a judge is and how it is asked. `arguments` go into every request; None takes a default one out."""

    base_url: str
    model: str
    key: str = field(default="", repr=False)
    timeout_s: float = 120.0
    attempts: int = 6
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        parts = urlsplit(self.base_url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(
                f"--judge-base-url {shown_url(self.base_url)!r} is no http(s) address such as {DEFAULT_BASE_URL}"
            )
        if parts.username or parts.password or parts.query:
            raise UsageError(
                f"--judge-base-url {shown_url(self.base_url)!r} has a user, a password or a query in it; keys are "
                f"given in the environment: {' or '.join(KEY_VARIABLES)}"
            )
        if not self.key.isascii() or not self.key.isprintable():
            raise UsageError("the judge's key has characters that no header can hold; check the variable it comes from")

    @property
    def url(self) -> str:
        base = self.base_url.rstrip("/")
        return base if base.endswith("/chat/completions") else f"{base}/chat/completions"

    @property
    def sends_key_in_clear(self) -> bool:
        """Over plain http to another machine."""
        parts = urlsplit(self.base_url)
        return bool(self.key) and parts.scheme == "http" and parts.hostname not in ("localhost", "127.0.0.1", "::1")


def key_from_environment() -> str:
    """The first of the variables that is set; empty for a server that wants none."""
    return next((os.environ[name].strip() for name in KEY_VARIABLES if os.environ.get(name, "").strip()), "")


def base_url_from_environment() -> str:
    """`$OPENAI_API_BASE` as VLMEvalKit's users set it, which may be the whole address, else OpenAI's."""
    return os.environ.get("OPENAI_API_BASE", "").strip() or DEFAULT_BASE_URL


def shown_url(url: str) -> str:
    """An address without user, password and query."""
    parts = urlsplit(url)
    if not parts.hostname:
        return url.partition("?")[0].rpartition("@")[2]
    return f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if _has_port(url) else ''}{parts.path}"


def _has_port(url: str) -> bool:
    try:
        return urlsplit(url).port is not None
    except ValueError:
        return False


class Endpoint:
    """Asks one question at a time; may be used from several threads, each with connections of its own."""

    def __init__(self, settings: EndpointSettings) -> None:
        self.settings = settings
        self.name = settings.model
        self.identity = json.dumps([settings.model, settings.url, settings.arguments], sort_keys=True, default=str)
        self.on_retry: Callable[[str], None] = lambda line: None
        """Told why a question is put again, the first few times: waits are long, and nothing else moves then."""
        self._told = itertools.count()
        self._local = threading.local()
        self._stopped = threading.Event()

    def stop(self) -> None:
        """End the waits of every thread."""
        self._stopped.set()

    def get_ready(self) -> bool:
        """The server is."""
        return False

    def ask(self, prompt: str) -> str:
        """The reply's text. Raises JudgeError if the server will never answer us, NoReplyError for this question."""
        tried = []
        for attempt in range(self.settings.attempts):
            try:
                return self._ask_once(prompt)
            except _Passing as failure:
                tried.append(str(failure))
                if attempt + 1 == self.settings.attempts or self._stopped.is_set():
                    break
                wait_s = self._wait_s(attempt, failure.retry_after_s)
                if next(self._told) < TOLD_RETRIES:
                    self.on_retry(
                        f"judge {self.name}: {failure}; asked again in {wait_s:.0f} s (attempt {attempt + 2} of "
                        f"{self.settings.attempts})"
                    )
                self._stopped.wait(wait_s)
        raise NoReplyError(
            f"judge {self.name} at {shown_url(self.settings.url)}: no reply in {len(tried)} attempts; the last: "
            f"{tried[-1]}"
        )

    def _wait_s(self, attempt: int, retry_after_s: float | None) -> float:
        """Doubled each time, with some chance so that threads do not come back all at once."""
        longest = self.settings.longest_wait_s
        if retry_after_s is not None:
            return min(retry_after_s, longest)
        return min(self.settings.first_wait_s * 2**attempt, longest) * random.uniform(0.75, 1.25)

    def _ask_once(self, prompt: str) -> str:
        import requests

        body = {
            "model": self.settings.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": 1024,
            **self.settings.arguments,
        }
        body = {name: value for name, value in body.items() if value is not None}
        deadline = time.monotonic() + self.settings.timeout_s
        try:
            with self._session().post(
                self.settings.url,
                data=json.dumps(body).encode("utf-8"),
                headers={"Content-Type": "application/json"},
                timeout=(min(CONNECT_TIMEOUT_S, self.settings.timeout_s), self.settings.timeout_s),
                allow_redirects=False,
                stream=True,
            ) as response:
                self._check_status(response, deadline)
                return self._text(_read(response, deadline))
        except (requests.ConnectionError, requests.Timeout) as error:
            raise _Passing(self._redacted(_reason(error))) from None
        except requests.RequestException as error:
            raise _Passing(self._redacted(f"{type(error).__name__}: {error}")) from None

    def _check_status(self, response: Response, deadline: float) -> None:
        status = response.status_code
        if status == 200:
            return
        said = self._redacted(_read(response, deadline).decode("utf-8", "replace"))[:500]
        what = f"HTTP {status}: {' '.join(said.split())[:200] or 'no text'}"
        if status in PASSING:
            raise _Passing(what, _retry_after_s(response))
        where = f"judge {self.name} at {shown_url(self.settings.url)}"
        if status in ABOUT_THE_QUESTION:
            hint = "; change what is sent with --judge-args, e.g. max_tokens=null,max_completion_tokens=1024"
            raise RefusedError(f"{where}: {what}{hint if status != 413 else ''}")
        hint = {
            401: f"; the key comes from {' or '.join(KEY_VARIABLES)}",
            403: f"; the key comes from {' or '.join(KEY_VARIABLES)}",
            404: "; check --judge-base-url (most end in /v1) and --judge",
        }.get(status, "")
        if 300 <= status < 400:
            hint = f"; it redirects to {shown_url(response.headers.get('Location', ''))}: give that as --judge-base-url"
        raise JudgeError(f"{where}: {what}{hint}")

    def _text(self, body: bytes) -> str:
        try:
            content = json.loads(body)["choices"][0]["message"]["content"]
        except (ValueError, LookupError, TypeError, RecursionError):
            start = self._redacted(body.decode("utf-8", "replace"))[:60]
            raise _Passing(f"no completion in the reply ({len(body)} bytes, they begin {start!r})") from None
        if not isinstance(content, str) or not content.strip():
            raise _Passing("the reply has no text")
        return content

    def _session(self) -> Session:
        session: Session | None = getattr(self._local, "session", None)
        if session is None:
            try:
                import requests
            except ImportError as error:
                raise MissingPackageError("requests", "asking a judge") from error
            session = requests.Session()
            session.auth = self._sign  # an `auth` of ours: else a .netrc could put its own in place
            self._local.session = session
        return session

    def _sign(self, request: PreparedRequest) -> PreparedRequest:
        if self.settings.key:
            request.headers["Authorization"] = f"Bearer {self.settings.key}"
        return request

    def _redacted(self, text: str) -> str:
        if self.settings.key:
            text = text.replace(self.settings.key, "***")
        return _KEY_LIKE.sub("***", text)


class _Passing(Exception):
    """A failure that may be gone at the next attempt."""

    def __init__(self, what: str, retry_after_s: float | None = None) -> None:
        super().__init__(what)
        self.retry_after_s = retry_after_s


def _reason(error: Exception) -> str:
    """What went wrong in a few words, without the library's chain of objects."""
    text = str(error)
    for sign, words in (
        ("refused", "connection refused"),
        ("timed out", "no answer in time"),
        ("Name or service not known", "the host name is not known"),
        ("getaddrinfo", "the host name is not known"),
        ("Remote end closed", "the connection was closed without an answer"),
        ("reset by peer", "the connection was reset"),
        ("CERTIFICATE_VERIFY_FAILED", "its certificate cannot be verified"),
    ):
        if sign in text:
            return words
    return f"{type(error).__name__}: {text[:200]}"


def _read(response: Response, deadline: float) -> bytes:
    """The whole body, whatever the pace it comes in; never more than is sensible, never longer than the deadline."""
    announced = response.headers.get("Content-Length", "")
    if announced.isdecimal() and int(announced) > MAX_REPLY_BYTES:
        raise _Passing(f"a reply of {int(announced) / 2**20:.1f} MiB")
    parts, size = [], 0
    # Byte by byte: a larger piece is waited for as a whole, past any deadline, if it comes in drops. Replies are small.
    for chunk in response.iter_content(1):
        parts.append(chunk)
        size += len(chunk)
        if size > MAX_REPLY_BYTES:
            raise _Passing(f"a reply of more than {MAX_REPLY_BYTES // 2**20} MiB")
        if time.monotonic() > deadline:
            raise _Passing("no answer in time: it comes in drops")
    return b"".join(parts)


def _retry_after_s(response: Response) -> float | None:
    """Seconds from now, which a server may also give as a date."""
    text = response.headers.get("Retry-After", "").strip()
    try:
        seconds = float(text)
    except ValueError:
        try:
            # Whole seconds: a wait that ends within the second named would come too early.
            seconds = max(0.0, parsedate_to_datetime(text).timestamp() + 1 - time.time())
        except (ValueError, OverflowError):
            return None
    return seconds if 0 <= seconds < float("inf") else None
