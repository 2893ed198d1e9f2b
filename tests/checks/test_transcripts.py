"""Transcripts: outputs that are events, a line each. The first event that differs is told."""

import torch
from torch import Tensor

from grader.checks.judge import judge
from grader.checks.judge.transcript import LONGEST, describe_transcript, events_of
from grader.checks.judge.wording import report
from grader.checks.observation import Observation
from grader.recordings.answers import Answer
from grader.recordings.tasks import Task, TaskCase
from grader.report import to_text
from grader.tolerance import EXACT


def written(*events: str) -> Tensor:
    return torch.tensor(list("\n".join(events).encode()), dtype=torch.uint8)


RIGHT = written('{"calls": "read"}', '{"refused": "../x"}', '{"ends": true}')


def test_the_first_event_that_differs_is_told() -> None:
    told = describe_transcript(written('{"calls": "read"}', '{"reads": "../x"}', "x"), RIGHT)
    assert told == 'event 2 of 3 differs: yours is `{"reads": "../x"}`, and `{"refused": "../x"}` belongs there'


def test_a_transcript_that_ends_too_early_says_what_is_next() -> None:
    told = describe_transcript(written('{"calls": "read"}'), RIGHT)
    assert told == 'it ends after 1 event, and the next should be `{"refused": "../x"}`'


def test_a_transcript_that_goes_on_says_with_what() -> None:
    told = describe_transcript(torch.cat([RIGHT, written("\nmore")]), RIGHT)
    assert told == "it should end after 3 events, and goes on with `more`"


def test_of_a_long_event_the_part_that_differs_is_shown() -> None:
    told = describe_transcript(written("a" * 500 + "X" + "b" * 500), written("a" * 500 + "Y" + "b" * 500))
    assert "aX" in told and "aY" in told and "..." in told and len(told) < 3 * LONGEST


def test_what_a_terminal_would_obey_is_escaped() -> None:
    output = torch.tensor([27, 91, 50, 74, 255, 65], dtype=torch.uint8)
    assert events_of(output) == ["\\x1b[2J\\xffA"]


def test_what_is_no_transcript_is_said() -> None:
    assert "where a transcript belongs" in describe_transcript(torch.zeros(2, 2), RIGHT)
    assert "where a transcript belongs" in describe_transcript(torch.zeros(3, dtype=torch.int64), RIGHT)


def verdict_text(output: Tensor) -> str:
    case = TaskCase("a case", {}, (), torch.float32, {}, "drive")
    task = Task("toy.loop", "loop", True, False, {}, (case,))
    answer = Answer("toy.loop", 1, ("events",), ({},), (RIGHT,), (EXACT,))
    return to_text(report(judge(task, answer, [Observation("a case", output=output)])))


def test_a_report_shows_the_event_and_no_table_of_bytes() -> None:
    text = verdict_text(written('{"calls": "read"}', '{"refused": "../y"}', '{"ends": true}'))
    assert 'yours is `{"refused": "../y"}`' in text.replace("\n", " ") and "first at" not in text


def test_a_right_transcript_is_right() -> None:
    assert "✓" in verdict_text(RIGHT.clone())
