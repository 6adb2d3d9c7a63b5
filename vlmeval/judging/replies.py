"""What judges have replied, as lines of JSON that are only ever appended: no question is paid for twice."""

from __future__ import annotations

import hashlib
import json
import os
import re
import threading
import time
from pathlib import Path

from vlmeval.storage import cache_folder, storage_error

_NOT_IN_A_FILE_NAME = re.compile(r"[^\w.\-]+")


def reply_key(judge: str, version: str, prompt: str) -> str:
    """What a reply is found by: who was asked, by which version of the prompt, and the whole text."""
    return hashlib.sha256(json.dumps([judge, version, prompt]).encode()).hexdigest()[:40]


def cache_path(judge_name: str) -> Path:
    """Where a judge's replies are kept, one file a judge."""
    return cache_folder("judge") / f"{_NOT_IN_A_FILE_NAME.sub('_', judge_name).strip('.')[:80] or 'judge'}.jsonl"


class ReplyCache:
    """The replies in one file. A torn or foreign line is skipped; several processes may append."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._replies: dict[str, str] = {}
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._read()
        except OSError as error:
            raise storage_error(path, error) from error

    def __len__(self) -> int:
        return len(self._replies)

    def get(self, key: str) -> str | None:
        """The reply to a question, if there is one."""
        return self._replies.get(key)

    def add(self, key: str, judge: str, version: str, reply: str) -> None:
        """Keep a reply, on disk first. Raises StorageError."""
        at = time.strftime("%Y-%m-%dT%H:%M:%S%z")
        record = {"key": key, "judge": judge, "prompt": version, "at": at, "reply": reply}
        line = json.dumps(record, ensure_ascii=True).encode() + b"\n"
        with self._lock:
            try:
                with open(self.path, "ab") as file:
                    # Begins a line of its own, whatever a killed process left.
                    file.write(line if file.tell() == 0 or not self._torn() else b"\n" + line)
            except OSError as error:
                raise storage_error(self.path, error) from error
            self._replies[key] = reply

    def _torn(self) -> bool:
        with open(self.path, "rb") as file:
            file.seek(-1, os.SEEK_END)
            return file.read(1) != b"\n"

    def _read(self) -> None:
        if not self.path.exists():
            return
        with open(self.path, "rb") as file:
            for line in file:
                try:
                    record = json.loads(line)
                    key, reply = record["key"], record["reply"]
                except (ValueError, TypeError, LookupError):
                    continue  # torn: that question is asked again
                if isinstance(key, str) and isinstance(reply, str):
                    self._replies[key] = reply
