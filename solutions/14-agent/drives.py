"""How a harness's parts are used: in a folder of their own, with scripted models and programs. All give transcripts."""

from typing import Any

import torch
from torch import Tensor


def told(events: list[Any]) -> Tensor:
    """A transcript: each event a line of JSON, as bytes [length], uint8."""
    import json

    def plain(value: Any) -> Any:
        if isinstance(value, tuple):
            return list(value)
        return f"a {type(value).__name__}"

    lines = [json.dumps(event, sort_keys=True, default=plain) for event in events]
    return torch.tensor(list("\n".join(lines).encode()), dtype=torch.uint8)


def outcome(function: Any, *args: Any) -> Any:
    """What a function returns, or "refused" where it raises the notebook's Refused."""
    try:
        return function(*args)
    except Exception as error:
        if type(error).__name__ == "Refused":
            return "refused"
        raise


def problems_found(problems: Any, schema: Any, values: list[Any]) -> Tensor:
    """What is wrong with each value, sorted."""
    events = []
    for value in values:
        found = problems(schema, value)
        if not isinstance(found, list | tuple):
            raise TypeError(f"problems returned a {type(found).__name__}, where a list belongs")
        events.append({"value": value, "problems": sorted(list(each) for each in found)})
    return told(events)


class Scripted:
    """A model that gives replies in turn, and notes the messages that it was called with."""

    def __init__(self, replies: list[Any]) -> None:
        self.replies, self.read = [*replies], 0
        self.events: list[Any] = []

    def __call__(self, messages: Any) -> Any:
        import copy

        new = [short(message) for message in messages[self.read :]]
        self.events.append({"model reads": new, "of": len(messages)})
        self.read = len(messages)
        reply = self.replies.pop(0) if self.replies else {"content": "there is no reply left"}
        return {"role": "assistant", "content": "", **copy.deepcopy(reply)}


def short(message: Any) -> Any:
    """A message as an event shows it: of an error or a refusal only that it is one."""
    if not isinstance(message, dict) or message.get("role") != "tool":
        return message
    content = message.get("content")
    if not isinstance(content, str):
        raise TypeError(f"a result's content is a {type(content).__name__}, where a text belongs")
    kind, colon, why = content.partition(":")
    if kind not in ("error", "refused") or not colon:
        return message
    return {**message, "content": kind if why.strip() else f"{kind}, and nothing behind it"}


class ToolError(Exception):
    """What a tool may raise."""


def conversation(run_agent: Any, schemas: Any, replies: list[Any], task: str, steps: int, says: list[str]) -> Tensor:
    """What a scripted model and its tools see, and all messages at the end.

    The tools note their arguments. One with "raises" in its schema raises that; says: the words that errors and refusals have to name, of each one in order.
    """
    model, names = Scripted(replies), list(schemas)

    def tool(name: str) -> Any:
        def run(**arguments: Any) -> Any:
            model.events.append({"runs": name, "with": arguments})
            raises = schemas[name].get("raises")
            if raises == "Refused":
                raise run_agent.__globals__["Refused"]("it may not")
            if raises:
                raise ToolError("it broke")
            gives = schemas[name].get("gives", f"{name} ran")
            return len(model.events) if gives == "a number" else gives

        return run

    messages = [{"role": "user", "content": task}]
    tools = {name: {"schema": schemas[name], "run": tool(name)} for name in names}
    given = run_agent(model, tools, messages, steps)
    told_off = [
        m["content"] for m in given if m.get("role") == "tool" and m["content"].startswith(("error:", "refused:"))
    ]
    named = [all(word in content for word in words.split()) for words, content in zip(says, told_off, strict=False)]
    ends = [short(message) for message in given[model.read :]]
    changed = messages != [{"role": "user", "content": task}]
    return told(
        [*model.events, {"ends with": ends, "of": len(given)}, {"errors name": named, "input changed": changed}]
    )


def put(tree: dict[str, Any], top: Any) -> None:
    """Makes files (texts), folders (None) and links ({"link": where}) below a folder."""
    import os

    for name, content in tree.items():
        path = top / name
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            if content is None:
                path.mkdir(exist_ok=True)
            elif isinstance(content, dict):
                os.symlink(content["link"].replace("TOP", str(top)), path)
            else:
                path.write_text(content, "utf-8")
        except OSError as error:
            raise OSError(f"this system allows no such file or link; WSL, Linux and macOS do ({error})") from None


def in_folder(tree: dict[str, Any], inside: str, use: Any) -> Any:
    """What `use` gives for a folder below one with these files, folders and links."""
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as made:
        top = Path(made).resolve() / "top"
        top.mkdir()
        put(tree, top)
        return use(top / inside, top)


def place(path: Any, top: Any) -> str:
    """A path as an event shows it: below the top folder."""
    from pathlib import PurePath

    if not isinstance(path, PurePath):
        raise TypeError(f"it returned a {type(path).__name__}, where a Path belongs")
    if path.is_relative_to(top) and top.as_posix()[1:] not in path.relative_to(top).as_posix():
        return "TOP/" + path.relative_to(top).as_posix()
    return f"elsewhere: {path.name}"


def paths_resolved(
    resolve: Any, tree: dict[str, Any], inside: str, asked: list[Any], later: dict[str, Any] | None = None
) -> Tensor:
    """Where each path leads, or that it is refused. asked: pairs of a path and whether it is written to.

    later: what is made afterwards, before the same paths are asked for once more.
    """
    import os

    def use(root: Any, top: Any) -> list[Any]:
        events: list[Any] = []
        for added in ({}, later)[: 2 if later else 1]:
            put(added or {}, top)
            events += [{"now there is": name} for name in added or {}]
            before = list(os.walk(top))
            for path, write in asked:
                found = outcome(resolve, root, path.replace("TOP", str(top)), write)
                where = found if found == "refused" else place(found, top)
                events.append({"path": path, "write": write, "gives": where})
            if list(os.walk(top)) != before:
                events.append("files or folders were made or changed")
        return events

    return told(in_folder(tree, inside, use))


def commands_permitted(permit: Any, tree: dict[str, Any], inside: str, allowed: Any, commands: list[str]) -> Tensor:
    """The words of each command, or that it is refused. Every second time options come as a tuple."""

    def use(root: Any, top: Any) -> list[Any]:
        events = []
        for i, command in enumerate(commands):
            given = {name: tuple(options) if i % 2 else list(options) for name, options in allowed.items()}
            words = outcome(permit, command.replace("TOP", str(top)), given, root)
            if isinstance(words, list):
                words = [word.replace(str(top), "TOP") if isinstance(word, str) else word for word in words]
            events.append({"command": command, "gives": words})
        return events

    return told(in_folder(tree, inside, use))


class Program:
    """A scripted process: what it writes, whether it hangs or leaves others behind, and what was done to it.

    script: "output" (text), "times" (so often), "hangs" (until its group is killed), "closes" (its output, and hangs),
    "code", "leaves" (others in its group after its end), "late" (it ends only when it is waited for).
    """

    def __init__(self, script: dict[str, Any]) -> None:
        import io
        import threading

        self.script, self.killed, self.pid = script, threading.Event(), 4321
        self.returncode: int | None = None
        self.content = (script["output"] * script.get("times", 1)).encode("latin-1")
        self.taken, self.stdout, self.stderr, self.stdin = 0, self, None, None
        self.events: list[Any] = []
        self.closed, self.io = False, io

    # What Popen is asked for

    def start(self, argv: Any, **settings: Any) -> "Program":
        import subprocess

        self.events.append(
            {
                "starts": argv if isinstance(argv, str) else list(argv),
                "shell": bool(settings.get("shell")),
                "no input": settings.get("stdin") == subprocess.DEVNULL,
                "errors with the output": settings.get("stderr") == subprocess.STDOUT,
                "piped": settings.get("stdout") == subprocess.PIPE,
                "session of its own": bool(settings.get("start_new_session")) or self.calls_setsid(settings),
                "folder": getattr(settings.get("cwd"), "name", settings.get("cwd")),
            }
        )
        self.text = bool(settings.get("text") or settings.get("encoding") or settings.get("universal_newlines"))
        self.raw = settings.get("bufsize") == 0
        return self

    def calls_setsid(self, settings: dict[str, Any]) -> bool:
        import os

        return settings.get("preexec_fn") is getattr(os, "setsid", self)

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *error: Any) -> None:
        self.wait()

    def wait(self, timeout: Any = None) -> int:
        import subprocess

        blocked = self.taken < len(self.content) and len(self.content) > 70_000
        if (blocked or self.script.get("hangs")) and not self.killed.wait(2 if timeout is None else timeout):
            if timeout is not None:
                raise subprocess.TimeoutExpired("program", timeout)
            self.goes_on("waits")
        if self.returncode is None:
            ended = self.script.get("hangs") or blocked
            killed = ended or (self.killed.is_set() and self.script.get("late"))
            self.returncode = -9 if killed else int(self.script["code"])
        return self.returncode

    def poll(self) -> Any:
        if self.returncode is None and not (self.script.get("hangs") and not self.killed.is_set()):
            self.wait(1)
        return self.returncode

    def communicate(self, input: Any = None, timeout: Any = None) -> Any:
        import subprocess

        if self.script.get("hangs") and not self.killed.wait(1 if timeout is None else timeout):
            raise subprocess.TimeoutExpired("program", timeout)
        output = self.read()
        self.wait()
        return output, None

    def kill(self) -> None:
        self.events.append("kills the first process alone")

    terminate = kill

    # What its output is asked for

    def read(self, size: int = -1) -> Any:
        if self.raw:
            return self.read1(size)
        end = len(self.content) if size is None or size < 0 else self.taken + size
        piece = self.taken_to(end)
        if (size is None or size < 0 or len(piece) < size) and not self.at_its_end():
            self.goes_on("reads")
        return piece.decode() if self.text else piece

    def read1(self, size: int = -1) -> Any:
        """What is there of the next five bytes: a pipe gives what was written, however little it is."""
        piece = self.taken_to(self.taken + min(5, size if size and size > 0 else 5))
        if not piece and not self.at_its_end():
            self.goes_on("reads")
        return piece.decode() if self.text else piece

    def goes_on(self, what: str) -> None:
        """Nobody has killed what hangs: it ends, so that the check does."""
        self.events.append(f"{what} for a program that hangs, and nothing stops it")
        self.killed.set()

    def taken_to(self, end: int) -> bytes:
        piece = self.content[self.taken : end]
        self.taken = min(len(self.content), end)
        return piece

    def at_its_end(self) -> bool:
        """Whether its output ends, by itself or within a second."""
        return not self.script.get("hangs") or bool(self.script.get("closes")) or self.killed.wait(2)

    def close(self) -> None:
        self.closed = True

    # What kills its group

    def kill_group(self, pid: int, number: int) -> None:
        gone = self.returncode is not None and not self.script.get("leaves")
        if self.killed.is_set() or gone:
            raise ProcessLookupError("no such group")
        self.killed.set()
        self.events.append({"kills the group": pid == self.pid, "with": int(number), "still running": self.running()})

    def running(self) -> bool:
        return self.returncode is None


def program_run(run: Any, argv: list[str], seconds: float, most: int, script: dict[str, Any]) -> Tensor:
    """How a program is started, what is read of it, how it ends, and what is returned."""
    import threading
    import time
    from pathlib import Path

    program, before = Program(script), threading.active_count()
    given = run(argv, Path("folder"), seconds, most, program.start, program.kill_group)
    alive = [name for name, left in (("a process", program.returncode is None),) if left]
    for _ in range(400):  # a timer that was cancelled ends soon
        if threading.active_count() <= before:
            break
        time.sleep(0.005)
    threads = threading.active_count() > before
    group = script.get("leaves") and not program.killed.is_set()
    end = {
        "not waited for": alive,
        "others left": bool(group),
        "read too much": program.taken > most + 1,
        "threads left": threads,
    }
    return told([*program.events, given, end])


def limits_given(child_limits: Any, asked: list[Any]) -> Tensor:
    """What a child may do: asked are parent, steps and tools of each.

    A child's list is then changed, which changes neither its parent nor what is said to the same question.
    """
    import copy

    events: list[Any] = []
    for parent, steps, tools in asked:
        before = copy.deepcopy(parent)
        found = outcome(child_limits, parent, steps, tools)
        gets = copy.deepcopy(found)
        if isinstance(found, dict) and isinstance(found.get("tools"), list):
            found["tools"].append("added to the list of a child")
        events.append({"parent": before, "asks": [steps, tools], "gets": gets, "parent changed": parent != before})
        parent.clear()
        parent.update(copy.deepcopy(before))
        again = outcome(child_limits, parent, steps, tools)
        if again != gets:
            events.append({"asks the same again": [steps, tools], "gets": again})
    return told(events)


def facts_told(
    workspace_facts: Any, tree: dict[str, Any], inside: str, most: int, later: dict[str, Any] | None = None
) -> Tensor:
    """The facts of a folder. later: what is made afterwards, before they are asked for once more."""

    def use(root: Any, top: Any) -> list[Any]:
        events: list[Any] = []
        for added in ({}, later)[: 2 if later else 1]:
            put(added or {}, top)
            events += [{"now there is": name} for name in added or {}]
            found = dict(workspace_facts(root, most))
            if isinstance(found.get("files"), list):
                found["files"] = [str(name).replace(str(top), "TOP") for name in found["files"]]
            events += sorted(({name: found[name]} for name in found), key=str)
        return events

    return told(in_folder(tree, inside, use))


def prompts_built(build_prompt: Any, rules: str, turns: list[Any]) -> Tensor:
    """The messages of each prompt. turns: tools, history and state."""
    import copy

    events: list[Any] = []
    for turn in turns:
        before = copy.deepcopy(turn)
        prompt = build_prompt(rules, *turn)
        events += [*prompt, {"messages": len(prompt), "given changed": turn != before}]
        turn[:] = before
    return told(events)


def tokens_reused(made: Any, size: int, prompts: list[Any]) -> Tensor:
    """How many tokens of each prompt are reused. prompts: a salt and ids."""
    cache = made(size)
    return told(
        [{"prompt": n, "tokens": len(ids), "reused": cache.read([*ids], salt)} for n, (salt, ids) in enumerate(prompts)]
    )


def tokens_paid_for(tokens_paid: Any, asked: list[Any]) -> Tensor:
    return told([{"asked": each, "tokens": tokens_paid(*each)} for each in asked])


def counter(kind: str) -> Any:
    """Counts tokens: "words", "bytes", "pairs" of characters, or whole "tens" of them."""
    if kind == "words":
        return lambda text: len(text.split())
    if kind == "pairs":
        return lambda text: (len(text) + 1) // 2
    if kind == "tens":
        return lambda text: len(text) // 10
    return lambda text: len(text.encode())


def texts_cut(cut: Any, texts: list[str], most: int, kind: str) -> Tensor:
    return told([{"most": most, "gives": cut(text, most, counter(kind))} for text in texts])


def histories_fitted(fit: Any, messages: list[Any], limits: list[int], kind: str) -> Tensor:
    """Which messages are sent, for several limits."""
    import copy

    events: list[Any] = []
    for most in limits:
        before = copy.deepcopy(messages)
        sent = fit(messages, most, counter(kind))
        events.append({"most": most, "sends": [message["content"] for message in sent]})
        if messages != before or any(message not in before for message in sent):
            events.append("messages were changed")
    return told(events)


def sessions_resumed(made: Any, lines: list[Any], torn: str, appended: list[Any]) -> Tensor:
    """What is loaded, and loaded again after more was appended; what the file has then. torn: a last line cut off."""
    import json
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "session.jsonl")
        if lines or torn:
            cut = torn.encode()[:-1] if torn.endswith("\u00fc") else torn.encode()  # in the middle of a letter
            whole = [json.dumps(line, ensure_ascii=False) + "\n" for line in lines]
            path.write_bytes("".join(whole).encode() + cut)
        session = made(path)
        first = session.load()
        events: list[Any] = [{"loads": message} for message in first]
        size = path.stat().st_size if path.exists() else 0
        for message in appended:
            session.append(message)
            after = path.stat().st_size
            events.append({"appends": message, "written at once": after > size})
            size = after
        try:
            again = session.load()
            events += [{"loads again": message} for message in again[len(first) :]]
            events.append({"another object loads the same": made(path).load() == again})
        except ValueError as error:
            events.append(f"the second load raises {type(error).__name__}")
        content = path.read_text("utf-8", "replace") if path.exists() else ""
        events.append({"lines": content.count("\n"), "ends with a line break": content.endswith("\n")})
        return told(events)


class Machine:
    """An automaton as the notebook has it."""

    def __init__(self, step: list[Any], final: list[int]) -> None:
        self.step, self.final = [{int(byte): to for byte, to in pairs} for pairs in step], set(final)


def tokens_allowed(
    allowed_tokens: Any, step: Any, final: Any, states: Any, vocabulary: Any, end: int, later: Any = None
) -> Tensor:
    """Which tokens may follow in each state, and where they lead. vocabulary: texts, a byte a character.

    later: another vocabulary and its end, with which the same automaton is asked once more.
    """
    machine = Machine(step, final)
    events: list[Any] = []
    for texts, last in [(vocabulary, end), *([later] if later else [])]:
        tokens = [text.encode("latin-1") for text in texts]
        if texts is not vocabulary:
            events.append("another vocabulary")
        for state in states:
            try:
                found = allowed_tokens(machine, state, tokens, last)
                events.append({"state": state, "allowed": sorted([int(t), int(s)] for t, s in found.items())})
            except ValueError:
                events.append({"state": state, "raises": "ValueError"})
    before = Machine(step, final)
    if (machine.step, machine.final) != (before.step, before.final):
        events.append("the automaton was changed")
    return told(events)
