"""Many questions to a judge: cached, counted, stopped when it is down, and never guessed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.prompt_parts import text_of
from vlmeval.errors import JudgeError, NoReplyError
from vlmeval.judging.endpoint import Endpoint, EndpointSettings
from vlmeval.judging.judge import REMINDER, Judge, Question
from vlmeval.judging.local import LocalJudge
from vlmeval.judging.replies import ReplyCache, cache_path
from vlmeval.types import Answer, Message

from .judge_server import JudgeServer, rubbish, status


def judge(server: JudgeServer, tmp_path: Path, parallel: int = 4) -> Judge:
    settings = EndpointSettings(
        base_url=server.url, model="j", timeout_s=2, attempts=2, first_wait_s=0.01, longest_wait_s=0.05
    )
    return Judge(Endpoint(settings), ReplyCache(tmp_path / "j.jsonl"), parallel=parallel)


def letter(reply: str) -> str | None:
    return reply if reply in "AB" else None


def questions(count: int, version: str = "v1") -> list[Question[str]]:
    return [Question(index=n, prompt=f"question {n}", version=version, read=letter) for n in range(count)]


def test_every_question_is_asked_once_and_kept(server: JudgeServer, tmp_path: Path) -> None:
    def slowly(prompt: str) -> str:
        time.sleep(0.02)
        return "AB"[int(prompt.split()[1]) % 2]

    server.reply = slowly
    seen: list[int] = []
    first = judge(server, tmp_path).ask_all(questions(20), seen.append)
    assert first.found == {n: "AB"[n % 2] for n in range(20)}
    assert (first.asked, first.from_cache, seen[-1]) == (20, 0, 20)
    assert len(server.requests) == 20
    assert 1 < server.most_at_once <= 4
    again = judge(server, tmp_path).ask_all(questions(21))
    assert (again.from_cache, len(server.requests)) == (20, 21)
    records = [json.loads(line) for line in (tmp_path / "j.jsonl").read_text().splitlines()]
    assert {record["prompt"] for record in records} == {"v1"}


def test_equal_questions_at_once_have_one_reply_though_the_judge_wavers(server: JudgeServer, tmp_path: Path) -> None:
    said: list[str] = []

    def wavering(prompt: str) -> str:
        said.append(prompt)
        time.sleep(0.05)
        return "AB"[len(said) % 2]

    server.reply = wavering
    equal = [Question(index=n, prompt=f"question {n % 2}", version="v1", read=letter) for n in range(8)]
    first = judge(server, tmp_path, parallel=8).ask_all(equal)
    assert sorted(said) == ["question 0", "question 1"]
    assert judge(server, tmp_path).ask_all(equal).found == first.found


def test_another_version_of_the_prompt_another_judge_or_another_answer_is_another_question(
    server: JudgeServer, tmp_path: Path
) -> None:
    judge(server, tmp_path).ask_all(questions(2))
    assert judge(server, tmp_path).ask_all(questions(2, "v2")).from_cache == 0
    other = EndpointSettings(base_url=server.url, model="other")
    assert Judge(Endpoint(other), ReplyCache(tmp_path / "j.jsonl")).ask_all(questions(2)).from_cache == 0
    changed = [Question(index=0, prompt="question 0!", version="v1", read=letter)]
    assert judge(server, tmp_path).ask_all(changed).from_cache == 0


def test_a_reply_that_cannot_be_read_is_asked_for_once_more_and_then_counted(
    server: JudgeServer, tmp_path: Path
) -> None:
    server.reply = lambda prompt: "A" if "1" in prompt and prompt.endswith(REMINDER) else "perhaps A or B"
    result = judge(server, tmp_path).ask_all(questions(3))
    assert result.found == {1: "A"}
    assert sorted(result.unread) == [0, 2]
    assert len(server.requests) == 6
    assert "2 replies could not be read" in result.notes("j", 9, "counted as wrong")[1]
    assert judge(server, tmp_path).ask_all(questions(3)).from_cache == 3
    assert len(server.requests) == 6


def test_a_question_without_reply_is_counted_not_kept_and_asked_again_next_time(
    server: JudgeServer, tmp_path: Path
) -> None:
    server.misbehave = [rubbish("<html>")] * 2
    result = judge(server, tmp_path, parallel=1).ask_all(questions(3))
    assert result.found == {1: "A", 2: "A"}
    assert list(result.unanswered) == [0]
    assert "no reply about 1 rows (index 0): nothing found" in result.notes("j", 3, "nothing found")[1]
    assert judge(server, tmp_path).ask_all(questions(3)).found == {0: "A", 1: "A", 2: "A"}


def test_questions_it_refuses_do_not_make_a_judge_that_answered_others_count_as_down(
    server: JudgeServer, tmp_path: Path
) -> None:
    one_by_one = judge(server, tmp_path, parallel=1)
    first = one_by_one.ask_all(questions(1))
    assert first.found == {0: "A"}
    server.misbehave = [status(400, "content filter")] * 7
    result = one_by_one.ask_all(questions(9))
    assert (list(result.unanswered), result.found) == ([*range(1, 8)], {0: "A", 8: "A"})
    server.misbehave = [status(400, "content filter")] * 7
    again = judge(server, tmp_path, parallel=1).ask_all(questions(9))  # nothing but the refused is left to ask
    assert list(again.unanswered) == [*range(1, 8)]


def test_a_judge_that_refuses_from_the_start_is_told_before_the_rest_is_asked(
    server: JudgeServer, tmp_path: Path
) -> None:
    server.misbehave = [status(400, "max_tokens is unknown")] * 100
    with pytest.raises(JudgeError, match="max_tokens is unknown"):
        judge(server, tmp_path).ask_all(questions(50))


def test_a_judge_that_is_down_from_the_start_is_told_before_the_rest_is_asked(
    server: JudgeServer, tmp_path: Path
) -> None:
    server.misbehave = [status(503, "down")] * 100
    with pytest.raises(JudgeError, match=r"HTTP 503: down; the first 2 questions"):
        judge(server, tmp_path).ask_all(questions(50))
    assert len(server.requests) == 4


def test_a_judge_that_goes_down_stops_the_run_and_the_next_goes_on_from_there(
    server: JudgeServer, tmp_path: Path
) -> None:
    def failing(prompt: str) -> str:
        if len(server.requests) > 10:
            server.misbehave = [status(500, "down")] * 100
        return "A"

    server.reply = failing
    with pytest.raises(JudgeError, match="questions in a row went without a reply"):
        judge(server, tmp_path).ask_all(questions(50))
    server.reply, server.misbehave = (lambda prompt: "A"), []
    result = judge(server, tmp_path).ask_all(questions(50))
    assert result.from_cache >= 7
    assert len(result.found) == 50


def test_a_wrong_key_is_told_after_one_request(server: JudgeServer, tmp_path: Path) -> None:
    server.misbehave = [status(401, "no")] * 9
    with pytest.raises(JudgeError, match="HTTP 401"):
        judge(server, tmp_path).ask_all(questions(9))
    assert len(server.requests) == 1


def test_a_torn_line_and_foreign_lines_in_the_cache_are_skipped(server: JudgeServer, tmp_path: Path) -> None:
    judge(server, tmp_path).ask_all(questions(3))
    path = tmp_path / "j.jsonl"
    path.write_bytes(b"[]\n\xff\n{}\n" + path.read_bytes()[:-20])
    assert judge(server, tmp_path).ask_all(questions(3)).from_cache == 2
    assert judge(server, tmp_path).ask_all(questions(3)).from_cache == 3


def test_the_cache_of_a_hub_id_is_one_file_below_the_cache_folder(tmp_path: Path) -> None:
    assert cache_path("../org/model:1") == tmp_path / "cache" / "judge" / "_org_model_1.jsonl"


class Model:
    """Answers with the first word of the prompt; counts how many ask at once."""

    def __init__(self) -> None:
        self.loads = self.busy = self.most = 0
        self.lock = threading.Lock()

    def load(self) -> None:
        self.loads += 1

    def generate_batch(self, batch: object, task: object = None) -> list[Answer]:
        with self.lock:
            self.busy += 1
            self.most = max(self.most, self.busy)
        prompt: Message = batch[0][0]  # type: ignore[index]
        with self.lock:
            self.busy -= 1
        return [Answer(text=text_of(prompt).split()[0] if "3" not in text_of(prompt) else " ")]


def test_a_judge_in_this_process_is_asked_one_at_a_time(tmp_path: Path) -> None:
    model = Model()
    ask: Callable[[str], str | None] = lambda reply: reply  # noqa: E731
    asked = Judge(LocalJudge("local", model, "local@cpu"), ReplyCache(tmp_path / "l.jsonl"))
    result = asked.ask_all([Question(index=n, prompt=f"p{n} x", version="v1", read=ask) for n in range(6)])
    assert result.found == {n: f"p{n}" for n in range(6) if n != 3}
    assert list(result.unanswered) == [3]
    assert model.most == 1


def test_a_model_that_says_nothing_has_given_no_reply() -> None:
    with pytest.raises(NoReplyError, match="an empty reply"):
        LocalJudge("local", Model(), "x").ask("3")
