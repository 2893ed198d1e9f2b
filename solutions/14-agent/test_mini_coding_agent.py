"""What the public tests of mini-coding-agent, commit 717cae4, ask of a harness, asked of this lesson's in our own words.

The notebook has the table: 11 of its 19 tests ask something that holds here, the last of them in test_agent.py (a server
may be the model); three ask for something that is otherwise here, which two tests below show.
"""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from grader.authoring.kit.solved import lesson_of

SOLVED = lesson_of(__file__).solutions
Refused, run_agent, Session = SOLVED["Refused"], SOLVED["run_agent"], SOLVED["Session"]
NOTHING = {"type": "object"}


def scripted(*replies: Any) -> Callable[..., Any]:
    """A model that gives these replies: a text is an answer, and (name, arguments) a call."""
    numbers, waiting = itertools.count(), iter(replies)

    def model(messages: Any) -> dict[str, Any]:
        reply = next(waiting)
        if isinstance(reply, str):
            return {"role": "assistant", "content": reply}
        call = {"id": f"c{next(numbers)}", "name": reply[0], "arguments": reply[1]}
        return {"role": "assistant", "content": "", "calls": [call]}

    return model


def a_tool(run: Callable[..., Any], schema: dict[str, Any] = NOTHING) -> dict[str, Any]:
    return {"schema": schema, "run": run}


def reader(root: Path) -> dict[str, Any]:
    schema = {"type": "object", "required": ["path"], "properties": {"path": {"type": "string"}}}
    return {"read": a_tool(lambda path: SOLVED["resolve"](root, path).read_text("utf-8"), schema)}


def asked(model: Any, tools: Any, steps: int = 6) -> list[dict[str, Any]]:
    return list(run_agent(model, tools, [{"role": "user", "content": "do it"}], steps))


def results(messages: Any) -> list[str]:
    return [message["content"] for message in messages if message["role"] == "tool"]


def test_a_call_its_result_and_an_answer(tmp_path: Path) -> None:
    (tmp_path / "poem.txt").write_text("one\ntwo\n", "utf-8")
    messages = asked(scripted(("read", {"path": "poem.txt"}), "I have read it."), reader(tmp_path))
    assert results(messages) == ["one\ntwo\n"] and messages[-1]["content"] == "I have read it."


@pytest.mark.parametrize("malformed", ["no JSON", '"a text"', {"file": "poem.txt"}])
def test_a_malformed_call_is_told_and_the_next_one_runs(tmp_path: Path, malformed: Any) -> None:
    (tmp_path / "poem.txt").write_text("one\n", "utf-8")
    messages = asked(scripted(("read", malformed), ("read", {"path": "poem.txt"}), "done"), reader(tmp_path))
    told, read = results(messages)
    assert told.startswith("error: ") and read == "one\n" and messages[-1]["content"] == "done"


def test_wrong_arguments_are_refused_before_a_tool_asks_anybody() -> None:
    def write(path: str) -> None:
        pytest.fail("it was asked for permission")

    schema = {"type": "object", "required": ["path"], "properties": {"path": {"type": "string"}}}
    (told,) = results(asked(scripted(("write", {}), "done"), {"write": a_tool(write, schema)}))
    assert told.startswith("error: ") and "path" in told


@pytest.mark.parametrize("between", [[], [("other", {})]])
def test_the_third_equal_call_is_refused(between: list[Any]) -> None:
    ran: list[str] = []
    tools = {name: a_tool(lambda name=name: ran.append(name)) for name in ("list", "other")}
    messages = asked(scripted(("list", {}), *between, ("list", {}), *between, ("list", {}), "done"), tools, 9)
    assert results(messages)[-1].startswith("refused: ") and ran.count("list") == 2


def test_paths_that_lead_out_are_refused(tmp_path: Path) -> None:
    root, outside = tmp_path / "work", tmp_path / "outside"
    root.mkdir()
    outside.mkdir()
    (root / "door").symlink_to(outside, target_is_directory=True)
    for path in ("../outside.txt", "door/secret.txt"):
        with pytest.raises(Refused):
            SOLVED["resolve"](root, path)


def test_folders_of_git_and_of_the_harness_are_not_listed(tmp_path: Path) -> None:
    for name in (".git/config", ".agent/session.jsonl", "poem.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert SOLVED["workspace_facts"](tmp_path, 9)["files"] == ["poem.txt"]


def test_a_session_is_saved_and_goes_on(tmp_path: Path) -> None:
    first = Session(tmp_path / "session.jsonl")
    for message in asked(scripted("the first answer"), {}):
        first.append(message)
    messages = Session(tmp_path / "session.jsonl").load()
    assert messages[0]["content"] == "do it"
    again = run_agent(scripted("the second answer"), {}, [*messages, {"role": "user", "content": "go on"}], 3)
    assert [m["content"] for m in again] == ["do it", "the first answer", "go on", "the second answer"]


def test_an_answer_of_a_second_agent_reaches_the_first_one(tmp_path: Path) -> None:
    (tmp_path / "poem.txt").write_text("one\n", "utf-8")
    second, mine = scripted(("read", {"path": "poem.txt"}), "it says one"), {"depth": 1, "steps": 6, "tools": ["read"]}

    def delegate(task: str, steps: int) -> str:
        limits = SOLVED["child_limits"](mine, steps, ["read", "write"])
        tools = {name: reader(tmp_path)[name] for name in limits["tools"]}
        return str(run_agent(second, tools, [{"role": "user", "content": task}], limits["steps"])[-1]["content"])

    call = ("delegate", {"task": "read the poem", "steps": 2})
    messages = asked(scripted(call, "I was told"), {"delegate": a_tool(delegate)})
    assert results(messages) == ["it says one"] and messages[-1]["content"] == "I was told"


def test_a_file_that_was_written_between_two_reads_is_shown_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "settings"
    path.write_text("old", "utf-8")
    tools = {**reader(tmp_path), "write": a_tool(lambda: path.write_text("new", "utf-8"))}
    read = ("read", {"path": "settings"})
    messages = asked(scripted(read, ("write", {}), read, "done"), tools)
    sent = SOLVED["fit"](messages, 1000, len)
    assert results(sent) == ["old", "3", "new"]
    assert json.dumps(sent).count('"old"') == 1


# What is otherwise here


def test_a_reply_without_calls_is_the_answer_even_if_it_is_empty() -> None:
    assert [m["content"] for m in asked(scripted("", "never asked for"), {})] == ["do it", ""]


def test_equal_results_are_both_in_the_history(tmp_path: Path) -> None:
    (tmp_path / "log").write_text("stable", "utf-8")
    read = ("read", {"path": "log"})
    messages = asked(scripted(read, read, "done"), reader(tmp_path))
    assert results(SOLVED["fit"](messages, 1000, len)) == ["stable", "stable"]
