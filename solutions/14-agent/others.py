"""What tests/lessons/test_every_lesson.py asks of agent: other right programs and wrong ones, random cases."""

import contextlib
import errno
import fnmatch
import json
import os
import re
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from grader.authoring.kit import Case
from grader.authoring.kit.declared import Change, Numbers, Rerun, Told
from grader.authoring.kit.solved import lesson_of

from . import exercises

LESSON = lesson_of(__file__)

MISTAKES = 231
VARIES: list[str] = []
NO_MODEL = "its exercises are about texts, paths and processes"
WITHOUT = {
    **dict.fromkeys(("TRACE", "PLANTED", "HUB", "SIZES", "CONFIG_SHA256"), NO_MODEL),
    "TRAINED": "it is run in a harness; test_agent.py compares its tokens with transformers'",
    "VARIES": "its inputs are texts and numbers; all of them are others in a hidden recording",
    "bfloat16": NO_MODEL,
    "stored answers": {
        "agent.loop": "it is given a model and tools, and what they are asked is what counts",
        "agent.paths": "it is asked in a folder with files, which no table of answers knows",
        "agent.run": "it is given a program, and what becomes of that is what counts",
        "agent.session": "its answers lie in a file, which no table of answers writes",
    },
}

KILL_GROUP: Callable[..., Any] = getattr(os, "killpg", os.kill)  # as in the notebook
KILL = getattr(signal, "SIGKILL", 9)


class Refused(Exception):
    """As the notebook's: a drive knows it by its name."""


# Random cases


CONFIGS = st.fixed_dictionaries({"size": st.integers(1, 9), "seed": st.integers(0, 10_000)})
PATHS = [
    "<a>.txt",
    "<b>",
    "..",
    ".",
    "to_inside",
    "to_folder",
    "to_file",
    "to_new",
    "work",
    ".git",
    "<x>",
    "<c>.md",
    "<f>.txt",
    "work-<d>",
]


def chosen(n: Numbers, among: Sequence[Any], count: int) -> list[Any]:
    """Some of several things, by a random number's digits."""
    found, seed = [], n.seed * 2654435761 + n.length
    for _ in range(count):
        seed = (seed * 6364136223846793005 + 1442695040888963407) % 2**64
        found.append(among[(seed >> 33) % len(among)])
    return found


def of_schema(config: dict[str, Any], n: Numbers) -> Case:
    kinds = chosen(n, [{"type": kind} for kind in ("string", "integer", "number", "boolean", "array", "object")], 3)
    schema = exercises.an_object(
        chosen(n, ["<a>", "<b>", "<d>"], 1), n.seed % 2 == 0, **dict(zip(("<a>", "<b>", "<c>"), kinds, strict=True))
    )
    some = chosen(n, ["<x>", 1, 1.5, True, None, [], {}, "", 0, False], 12)
    return exercises.text_case(
        str(n.seed), schema, [{"<a>": some[i], "<b>": some[i + 1], "<e>": 1} for i in range(0, 12, 2)]
    )


def of_loop(config: dict[str, Any], n: Numbers) -> Case:
    among = [
        ("read", {"path": "<b>"}),
        ("read", {}),
        ("<a>", {}),
        ("<c>", {}),
        ("read", '{"path": "<b>"}'),
        ("read", "{"),
    ]
    replies = [
        exercises.calls(*((f"{i}{j}", *call) for j, call in enumerate(chosen(n, among, 1 + (n.seed + i) % 3))))
        for i in range(4)
    ]
    return exercises.text_case(
        str(n.seed),
        {"read": exercises.READ, "<a>": exercises.PLAIN},
        [*replies, {"content": "<d>"}],
        "<e>",
        1 + n.length % 6,
        [],
    )


def of_paths(config: dict[str, Any], n: Numbers) -> Case:
    asked = [
        ["/".join(chosen(Numbers(1, i, n.seed, 1.0), PATHS, 1 + (n.seed + i) % 4)), i % 3 == 0] for i in range(1, 12)
    ]
    return exercises.paths_case(str(n.seed), "linked" if n.seed % 3 == 0 else "work", asked)


def of_permission(config: dict[str, Any], n: Numbers) -> Case:
    among = [
        "ls",
        "git",
        "log",
        "-l",
        "-n",
        "--stat=1",
        "cat",
        "<a>.txt",
        "to_file",
        "'<a>.txt'",
        "--file=<b>",
        "--",
        "diff",
        "..",
        ";",
    ]
    return exercises.commands_case(
        str(n.seed), *(" ".join(chosen(Numbers(1, i, n.seed, 1.0), among, 1 + i % 5)) for i in range(10))
    )


def of_run(config: dict[str, Any], n: Numbers) -> Case:
    return exercises.run_case(
        str(n.seed),
        30.0,
        (n.length + 4, n.length + 9),
        more=n.seed % 3 - 1,
        code=n.seed % 7,
        leaves=n.seed % 2 == 0,
        late=True,
    )


def of_limits(config: dict[str, Any], n: Numbers) -> Case:
    names = ["<a>", "<b>", "<c>", "<d>"]
    return exercises.limits_case(
        str(n.seed),
        *(
            (i % 3, config["size"] * i, sorted(set(chosen(n, names, 3))), n.seed % 9, chosen(n, names, i))
            for i in range(1, 6)
        ),
    )


def of_facts(config: dict[str, Any], n: Numbers) -> Case:
    names = chosen(n, ["<a>", ".<b>", "<c>/<d>", "<c>/.<e>", ".<f>/<g>", "<h>/<i>/<j>", "Z<k>", "<h>/<l>"], 6)
    return exercises.text_case(
        str(n.seed), {f"work/{name}": "" for name in names} | {"work/<z>": ""}, "work", config["size"]
    )


def of_prompt(config: dict[str, Any], n: Numbers) -> Case:
    tools = [{"name": f"<{c}>", "x": n.seed, "a": c} for c in "abcdef"[: 1 + n.seed % 6]]
    return exercises.text_case(
        str(n.seed), "<r>", [[tools, exercises.SAID[: n.seed % 4], {"b": n.length, "<s>": [1], "a": None}]]
    )


def of_blocks(config: dict[str, Any], n: Numbers) -> Case:
    prompts = []
    for i in range(6):
        letters = chosen(Numbers(1, i, n.seed, 1.0), "abA", 3)
        counts = chosen(Numbers(1, i + 9, n.seed, 1.0), range(1, 15), 3)
        prompts.append((chosen(n, ["", "<s>"], 6)[i], *zip(letters, counts, strict=True)))
    return exercises.blocks_case(str(n.seed), config["size"], *prompts)


def of_paid(config: dict[str, Any], n: Numbers) -> Case:
    return exercises.paid_case(
        str(n.seed),
        *(
            (20 + n.seed % 50, 1 + n.length, 1 + n.seed % 7, stamp, front, config["size"])
            for stamp in (0, n.seed % 6)
            for front in (True, False)
        ),
    )


def of_cut(config: dict[str, Any], n: Numbers) -> Case:
    lines = chosen(n, ["<a>\n", "<b> <c>\n", "\n", "<d> <e> <f> <g> <h>\n", "<i>"], 14)
    return exercises.cut_case(
        str(n.seed), 5 + n.length % 12, ["words", "bytes", "pairs"][n.seed % 3], "".join(lines), "".join(lines[:4])
    )


def of_history(config: dict[str, Any], n: Numbers) -> Case:
    length = next(i for i in (2, 3, 6, 7, 8, 10, 11, 12) if i >= n.seed % 13)
    return exercises.fit_case(
        str(n.seed), exercises.TALK[:length], [3 + n.length, 2 * n.length, 30], ["words", "bytes"][n.seed % 2]
    )


def of_session(config: dict[str, Any], n: Numbers) -> Case:
    torn = ["", '{"role": "us', "{", '{"role": "user", "content": "<x>"}'][n.seed % 4]
    return exercises.session_case(
        str(n.seed), exercises.TALK[: n.seed % 13], torn, [exercises.said("user", "<y>")] * (n.length % 3)
    )


def of_mask(config: dict[str, Any], n: Numbers) -> Case:
    vocabulary = sorted(set(chosen(n, ["a", "b", "ab", "ba", "aa", "abb", "", "c", "bc", "cab"], 8)))
    pattern = chosen(n, ["a*b", "(ab)*c", "a|b(c|a)*", "[abc]{1,4}", "ab?c?"], 1)[0]
    return exercises.mask_case(str(n.seed), pattern, "abc", vocabulary, n.seed % len(vocabulary), [""])


RANDOM = {
    "agent.schema": of_schema,
    "agent.loop": of_loop,
    "agent.paths": of_paths,
    "agent.permission": of_permission,
    "agent.run": of_run,
    "agent.limits": of_limits,
    "agent.facts": of_facts,
    "agent.prompt": of_prompt,
    "agent.blocks": of_blocks,
    "agent.paid": of_paid,
    "agent.cut": of_cut,
    "agent.history": of_history,
    "agent.session": of_session,
    "agent.mask": of_mask,
}


# Other right programs


def same(one: Any, other: Any) -> bool:
    """Whether two JSON values are equal, truth values and numbers told apart."""
    return json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True)


def problems_by_stack(schema: Mapping[str, Any], value: Any, path: str = "$") -> list[tuple[str, str]]:
    """Without recursion; found in another order."""
    found, waiting = [], [(schema, value, path)]
    kinds = {
        "string": (str,),
        "integer": (int,),
        "number": (int, float),
        "boolean": (bool,),
        "array": (list,),
        "object": (dict,),
    }
    while waiting:
        rule, it, where = waiting.pop()
        if "type" in rule and type(it) not in kinds[rule["type"]]:
            found.append((where, "type"))
        if "enum" in rule and not any(same(it, each) for each in rule["enum"]):
            found.append((where, "enum"))
        if type(it) is dict:
            known = rule.get("properties") or {}
            found.extend((f"{where}.{name}", "required") for name in set(rule.get("required", ())) - it.keys())
            waiting.extend((known[name], it[name], f"{where}.{name}") for name in known.keys() & it.keys())
            if rule.get("additionalProperties", True) is False:
                found.extend((f"{where}.{name}", "additionalProperties") for name in it.keys() - known.keys())
        if type(it) is list and "items" in rule:
            waiting.extend((rule["items"], each, f"{where}[{i}]") for i, each in enumerate(it))
    return found


def problems_by_keyword(schema: Mapping[str, Any], value: Any, path: str = "$") -> list[tuple[str, str]]:
    """A branch for each keyword of the schema."""
    found: list[tuple[str, str]] = []
    fields = schema.get("properties", {})
    for keyword, wanted in schema.items():
        if keyword == "type":
            name = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array", dict: "object"}.get(
                type(value)
            )
            if name != wanted and not (wanted == "number" and name == "integer"):
                found.append((path, keyword))
        elif keyword == "enum":
            if all(not same(value, each) for each in wanted):
                found.append((path, keyword))
        elif keyword == "items" and isinstance(value, list):
            for i in range(len(value)):
                found += problems_by_keyword(wanted, value[i], path + f"[{i}]")
        elif isinstance(value, dict):
            if keyword == "required":
                found += [(path + "." + name, keyword) for name in wanted if name not in value]
            elif keyword == "properties":
                for name in wanted:
                    found += problems_by_keyword(wanted[name], value[name], path + "." + name) if name in value else []
            elif keyword == "additionalProperties" and wanted is False:
                found += [(path + "." + name, keyword) for name in value if name not in fields]
    return found


def agent_by_results(
    model: Callable[..., Any], tools: Mapping[str, Any], messages: Sequence[dict[str, Any]], steps: int
) -> list[dict[str, Any]]:
    """All results of a reply at once; calls are counted in a dict."""
    counts: dict[str, int] = {}

    def result(call: dict[str, Any]) -> str:
        name, arguments = call["name"], call["arguments"]
        if name not in tools:
            return f"error: unknown tool {name!r}. Known: {sorted(tools)}"
        try:
            value = json.loads(arguments) if isinstance(arguments, str) else arguments
        except ValueError as error:
            return f"error: {error}"
        key = name + json.dumps(value, sort_keys=True)
        counts[key] = counts.get(key, 0) + 1
        if counts[key] >= 3:
            return "refused: again"
        wrong = problems_by_stack(tools[name]["schema"], value)
        if wrong:
            return f"error: {wrong}"
        try:
            return f"{tools[name]['run'](**value)}"
        except Refused as why:
            return f"refused: {why}"
        except Exception as error:
            return f"error: {type(error).__name__}: {error}"

    so_far = [*messages]
    while steps:
        steps -= 1
        reply = model(so_far)
        calls = reply.get("calls") or []
        so_far = [*so_far, reply, *({"role": "tool", "id": call["id"], "content": result(call)} for call in calls)]
        if not calls:
            return so_far
    return so_far


def agent_by_recursion(
    model: Callable[..., Any], tools: Mapping[str, Any], messages: Sequence[dict[str, Any]], steps: int, made: Any = ()
) -> list[dict[str, Any]]:
    """A step, and then the rest; calls that were made are kept as values."""
    if steps == 0:
        return list(messages)
    reply = model(tuple(messages))
    results, made = [], list(made)
    for call in reply.get("calls", ()):
        kind, text = "", ""
        try:
            tool = tools[call["name"]]
            value = call["arguments"]
            if not isinstance(value, dict):
                value = json.loads(value)
            made.append((call["name"], value))
            if made.count(made[-1]) > 2:
                raise Refused("three times the same")
            if problems_by_keyword(tool["schema"], value):
                raise TypeError(str(problems_by_keyword(tool["schema"], value)))
            text = str(tool["run"](**value))
        except KeyError as error:
            kind, text = "error", f"{error} is none of {', '.join(tools)}"
        except Exception as error:
            kind, text = "refused" if isinstance(error, Refused) else "error", str(error)
        results.append({"role": "tool", "id": call["id"], "content": f"{kind}: {text}" if kind else text})
    following = [*messages, reply, *results]
    return agent_by_recursion(model, tools, following, steps - 1, made) if results else following


def resolve_by_os(root: Path, path: str, write: bool = False) -> Path:
    """With os.path, and the folder that both have in common."""
    if min(map(ord, path), default=32) < 32:
        raise Refused("control character")
    top = os.path.realpath(root)
    try:
        real = os.path.realpath(os.path.join(top, path))
        if any(map(os.path.islink, [real, *map(str, Path(real).parents)])):
            raise Refused("a loop")
    except OSError:
        raise Refused("a loop") from None
    if os.path.commonpath([top, real]) != top:
        raise Refused("outside")
    inside = os.path.relpath(real, top).lower().split(os.sep)
    if write and {".git", ".agent"}.intersection(inside):
        raise Refused("closed")
    return Path(real)


def resolve_by_parts(root: Path, path: str, write: bool = False) -> Path:
    """Compares parts; tells loops by trying to look at the file."""
    if re.search("[\x00-\x1f]", path):
        raise Refused("control character")
    top = root.resolve()
    target = Path(os.path.realpath(top / path))
    try:
        target.stat()
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise Refused(str(error)) from None
    if target.parts[: len(top.parts)] != top.parts:
        raise Refused("outside")
    for part in target.parts[len(top.parts) :]:
        if write and part.casefold() in (".git", ".agent"):
            raise Refused("closed")
    return target


def permit_by_names(command: str, allowed: Mapping[str, Sequence[str]], root: Path) -> list[str]:
    """Tries the longest names first."""
    if any(character in command for character in ";&|<>`$\n\r"):
        raise Refused("a shell's characters")
    try:
        words = shlex.split(command)
    except ValueError:
        raise Refused("quotes") from None
    for name in sorted(allowed, key=lambda name: -len(name.split())):
        size = len(name.split())
        if " ".join(words[:size]) != name:
            continue
        for each in words[size:]:
            if each.startswith("-"):
                if each.split("=", 1)[0] not in allowed[name]:
                    raise Refused(each)
                each = each.split("=", 1)[1] if "=" in each else "."
            resolve_by_os(root, each)
        return words
    raise Refused("not allowed")


def permit_by_split(command: str, allowed: Mapping[str, Sequence[str]], root: Path) -> list[str]:
    """Reads words one after the other."""
    if set(";&|<>`$\n\r") & set(command):
        raise Refused("a shell's characters")
    lexer = shlex.shlex(command, posix=True)
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        words = [*lexer]
    except ValueError as error:
        raise Refused(str(error)) from None
    if not words:
        raise Refused("nothing")
    two = " ".join(words[:2])
    options, rest = (allowed[two], words[2:]) if two in allowed else (allowed.get(words[0]), words[1:])
    if options is None:
        raise Refused(words[0])
    for each in rest:
        found = re.fullmatch("(-[^=]*)=?(.*)", each, re.DOTALL)
        if found and found[1] not in options:
            raise Refused(each)
        resolve_by_parts(root, found[2] if found else each)
    return words


def run_by_pieces(
    argv: Sequence[str],
    root: Path,
    seconds: float,
    most: int,
    start: Callable[..., Any] = subprocess.Popen,
    kill: Callable[..., Any] = KILL_GROUP,
) -> dict[str, Any]:
    """Reads in a thread, a piece at a time; the caller waits for it."""
    process = start(
        [*argv],
        cwd=root,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    pieces: list[bytes] = []
    ended, begun = threading.Event(), time.monotonic()

    def read() -> None:
        while sum(map(len, pieces)) <= most:
            piece = process.stdout.read(min(5, most + 1 - sum(map(len, pieces))))
            if not piece:
                break
            pieces.append(piece)
        ended.set()

    reader = threading.Thread(target=read)
    reader.start()
    late = not ended.wait(seconds)
    too_much = sum(map(len, pieces)) > most
    if late or too_much:
        kill(process.pid, KILL)
    reader.join()
    try:
        code = process.wait(max(0.0, begun + seconds - time.monotonic()))
    except subprocess.TimeoutExpired:
        late = True
    with contextlib.suppress(ProcessLookupError):
        kill(process.pid, KILL)
    code = process.wait()
    output = b"".join(pieces)[:most].decode("utf-8", "replace")
    return {"output": output, "stopped": "time" if late else "output" if too_much else None, "code": code}


def run_by_events(
    argv: Sequence[str],
    root: Path,
    seconds: float,
    most: int,
    start: Callable[..., Any] = subprocess.Popen,
    kill: Callable[..., Any] = KILL_GROUP,
) -> dict[str, Any]:
    """A thread that kills unless it is told that the program has ended."""
    ended, why = threading.Event(), []
    process = start(
        tuple(argv),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        cwd=root,
        shell=False,
    )

    def watch() -> None:
        if not ended.wait(seconds):
            why.append("time")
            kill(process.pid, KILL)

    watcher = threading.Thread(target=watch)
    watcher.start()
    content = process.stdout.read(most + 1)
    if most < len(content):
        why.append("output")
        kill(process.pid, KILL)
    status = process.wait()
    ended.set()
    watcher.join()
    with contextlib.suppress(OSError):
        kill(process.pid, 9)
    return {"code": status, "output": str(content[:most], "utf-8", "replace"), "stopped": why[0] if why else None}


def limits_by_max(parent: Mapping[str, Any], steps: int, tools: Sequence[str]) -> dict[str, Any]:
    both = set(parent["tools"]) & set(tools)
    left = {
        "depth": parent["depth"] - 1,
        "steps": sorted([steps, int(parent["steps"] / 2)])[0],
        "tools": sorted(both, key=list(parent["tools"]).index),
    }
    if left["depth"] >= 0 and left["steps"] > 0 and both:
        return left
    raise Refused("nothing is left")


def limits_by_filter(parent: Mapping[str, Any], steps: int, tools: Sequence[str]) -> dict[str, Any]:
    shared = list(filter(set(tools).__contains__, parent["tools"]))
    half = (parent["steps"] - parent["steps"] % 2) // 2
    if not parent["depth"]:
        raise Refused("depth")
    if not shared or min(half, steps) <= 0:
        raise Refused("steps or tools")
    return dict(parent, depth=parent["depth"] - 1, steps=steps if steps < half else half, tools=shared)


def facts_by_scan(root: Path, most: int) -> dict[str, Any]:
    """Folder by folder, from a list."""
    waiting, files = [(root, "")], []
    while waiting:
        folder, before = waiting.pop()
        for entry in os.scandir(folder):
            if entry.name[0] == "." or entry.is_symlink():
                continue
            if entry.is_dir():
                waiting.append((Path(entry.path), f"{before}{entry.name}/"))
            else:
                files.append(before + entry.name)
    branch = None
    try:
        head = (root / ".git/HEAD").read_text("utf-8")
        if head.startswith("ref: refs/heads/") and "\n" not in head.removesuffix("\n"):
            branch = head[16:].removesuffix("\n")
    except OSError:
        pass
    files.sort()
    return {"more": len(files[most:]), "files": files[:most], "branch": branch}


def facts_by_glob(root: Path, most: int) -> dict[str, Any]:
    found = []
    for path in root.rglob("*"):
        parts = path.relative_to(root).parts
        links = any(root.joinpath(*parts[: i + 1]).is_symlink() for i in range(len(parts)))
        if not links and path.is_file() and not fnmatch.filter(parts, ".*"):
            found.append("/".join(parts))
    head = root / ".git" / "HEAD"
    lines = head.read_text("utf-8").split("\n") if head.exists() else [""]
    on = (
        re.match("ref: refs/heads/(.+)", lines[0])
        if [line for line in lines[1:] if line] == [] and len(lines) < 3
        else None
    )
    return {"files": sorted(found)[:most], "more": max(len(found), most) - most, "branch": on.group(1) if on else None}


def prompt_by_append(
    rules: str, tools: Sequence[Mapping[str, Any]], history: Sequence[dict[str, Any]], state: Mapping[str, Any]
) -> list[dict[str, Any]]:
    text = rules
    for name in sorted(tool["name"] for tool in tools):
        text += "\n" + json.dumps(next(tool for tool in tools if tool["name"] == name), sort_keys=True)
    prompt: list[dict[str, Any]] = [{"content": text, "role": "system"}]
    prompt.extend(history)
    prompt.append({"content": f"State: {json.dumps(dict(state), sort_keys=True)}", "role": "user"})
    return prompt


def prompt_by_encoder(
    rules: str, tools: Sequence[Mapping[str, Any]], history: Sequence[dict[str, Any]], state: Mapping[str, Any]
) -> list[dict[str, Any]]:
    write = json.JSONEncoder(sort_keys=True).encode
    ordered = sorted(tools, key=lambda tool: str(tool["name"]).encode())
    return [
        {"role": "system", "content": rules + "".join(f"\n{write(tool)}" for tool in ordered)},
        *map(dict, history),
        {"role": "user", "content": "State: " + write(state)},
    ]


class CacheOfPrefixes:
    """Whole prefixes in a set, in place of hashes."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.seen: set[tuple[Any, ...]] = set()

    def read(self, ids: Sequence[int], salt: str = "") -> int:
        starts = [(salt, *ids[:end]) for end in range(self.size, len(ids) + 1, self.size)]
        reused = max((len(start) - 1 for start in starts if start in self.seen), default=0)
        self.seen.update(starts)
        return reused - self.size if reused == len(ids) else reused


class CacheTree:
    """A tree of blocks, a root for each salt."""

    def __init__(self, size: int) -> None:
        self.size, self.roots = size, dict[str, Any]()

    def read(self, ids: Sequence[int], salt: str = "") -> int:
        node, known = self.roots.setdefault(salt, {}), 0
        for n in range(len(ids) // self.size):
            block = tuple(ids[n * self.size : (n + 1) * self.size])
            known += block in node
            node = node.setdefault(block, {})
        return min(known, (len(ids) - 1) // self.size) * self.size


def paid_by_cache(first: int, step: int, turns: int, stamp: int, front: bool, size: int) -> int:
    cache, fresh, total = CacheOfPrefixes(size), iter(range(10**6, 10**9)), 0
    text = list(range(first))
    for _ in range(turns):
        text = text + [len(text) + i for i in range(step)]
        time = [next(fresh) for _ in range(stamp)]
        prompt = [*time, *text] if front else [*text, *time]
        total += len(prompt) - cache.read(prompt)
    return total


def paid_by_formula(first: int, step: int, turns: int, stamp: int, front: bool, size: int) -> int:
    total = sum(first + t * step + stamp for t in range(1, turns + 1))
    for t in range(2, turns + 1):
        same = 0 if front and stamp else first + (t - 1) * step
        total -= min(same // size, (first + t * step + stamp - 1) // size) * size
    return total


def cut_by_sums(text: str, most: int, count: Callable[[str], int]) -> str:
    """All sums first, then the largest that fit."""
    lines = re.findall("[^\n]*\n|[^\n]+", text)
    sums = [0]
    for line in lines:
        sums.append(sums[-1] + count(line))
    total = sums[-1]
    if total <= most:
        return text
    head = max(i for i, each in enumerate(sums) if each <= most // 5)
    tail = min(i for i, each in enumerate(sums) if total - each <= most - sums[head])
    note = f"[{tail - head} lines, {sums[tail] - sums[head]} tokens left out]\n"
    return "".join(lines[:head]) + note + "".join(lines[tail:])


def cut_by_queues(text: str, most: int, count: Callable[[str], int]) -> str:
    """Takes lines from both ends of one list."""
    parts = text.split("\n")
    waiting = [part + "\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])
    if sum(map(count, waiting)) <= most:
        return text
    head: list[str] = []
    tail: list[str] = []
    while sum(map(count, head)) + count(waiting[0]) <= most // 5:
        head.append(waiting.pop(0))
    while sum(map(count, head + tail)) + count(waiting[-1]) <= most:
        tail.insert(0, waiting.pop())
    return "".join([*head, f"[{len(waiting)} lines, {sum(map(count, waiting))} tokens left out]\n", *tail])


def fit_by_starts(messages: Sequence[dict[str, Any]], most: int, count: Callable[[str], int]) -> list[dict[str, Any]]:
    """Where groups start, and what follows from each."""
    starts = [i for i, message in enumerate(messages) if message["role"] != "tool"] + [len(messages)]
    cost = [count(message["content"]) for message in messages]
    if len(starts) == 2:
        return list(messages)
    task, begin = starts[1], starts[-2]
    for start in reversed(starts[1:-2]):
        if sum(cost[:task]) + sum(cost[start:]) > most:
            break
        begin = start
    return [*messages[:task], *messages[begin:]]


def fit_by_stack(messages: Sequence[dict[str, Any]], most: int, count: Callable[[str], int]) -> list[dict[str, Any]]:
    """From the newest message on; a result waits for the message of its call."""
    groups: list[list[dict[str, Any]]] = []
    pending: list[dict[str, Any]] = []
    for message in reversed(messages):
        pending.insert(0, message)
        if message["role"] != "tool":
            groups.append(pending)
            pending = []
    newest, task = groups[0], groups[-1]
    if newest is task:
        return task
    used = sum(count(m["content"]) for m in [*task, *newest])
    sent = [newest]
    for group in groups[1:-1]:
        used += sum(count(m["content"]) for m in group)
        if used > most:
            break
        sent.append(group)
    return [*task, *(m for group in reversed(sent) for m in group)]


INTERRUPTED = "error: interrupted; look at what it did before you try again"


class SessionOfBytes:
    """Opens the file once for reading and writing."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def append(self, message: dict[str, Any]) -> None:
        with self.path.open("ab") as file:
            file.write(json.dumps(message).encode() + b"\n")

    def load(self) -> list[dict[str, Any]]:
        if not os.path.exists(self.path):
            return []
        messages = []
        with self.path.open("rb+") as file:
            end = 0
            for line in file:
                if line.endswith(b"\n"):
                    messages.append(json.loads(line))
                    end += len(line)
            file.truncate(end)
        last = {m["id"]: i for i, m in enumerate(messages) if m["role"] == "tool"}
        calls = [(i, call["id"]) for i, m in enumerate(messages) if "calls" in m for call in m["calls"]]
        lost = [each for i, each in calls if last.get(each, -1) < i]
        added = [{"role": "tool", "id": each, "content": INTERRUPTED} for each in lost]
        for message in added:
            self.append(message)
        return messages + added


class SessionRewritten(SessionOfBytes):
    """Writes the whole file anew where something was cut off."""

    def load(self) -> list[dict[str, Any]]:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return []
        *lines, torn = content.split(b"\n")
        if torn:
            new = self.path.with_suffix(".new")
            new.write_bytes(b"".join(line + b"\n" for line in lines))
            new.replace(self.path)
        messages = list(map(json.loads, lines))
        waiting: dict[str, None] = {}
        for message in messages:
            waiting |= {call["id"]: None for call in message.get("calls", [])}
            if message["role"] == "tool":
                waiting.pop(message["id"], None)
        for name in waiting:
            result = {"role": "tool", "id": name, "content": INTERRUPTED}
            self.append(result)
            messages.append(result)
        return messages


def tokens_by_reduce(automaton: Any, state: int, vocabulary: Sequence[bytes], end: int) -> dict[int, int]:
    """The state after each token, or None, byte by byte for all tokens of a length."""
    found = {}
    for token in range(len(vocabulary)):
        at, text = state, vocabulary[token]
        while text and at is not None:
            at, text = automaton.step[at].get(text[0]), text[1:]
        if token == end:
            if state in automaton.final:
                found[token] = state
        elif vocabulary[token] and at is not None:
            found[token] = at
    if found == {}:
        raise ValueError("none")
    return found


def tokens_by_prefixes(automaton: Any, state: int, vocabulary: Sequence[bytes], end: int) -> dict[int, int]:
    """Each prefix of a token is walked once for all tokens that begin with it."""
    after: dict[bytes, int | None] = {b"": state}

    def walk(text: bytes) -> int | None:
        if text not in after:
            before = walk(text[:-1])
            after[text] = None if before is None else automaton.step[before].get(text[-1])
        return after[text]

    allowed = {i: to for i, text in enumerate(vocabulary) if len(text) and i != end and (to := walk(text)) is not None}
    allowed.update({end: state} if state in automaton.final else {})
    if allowed:
        return allowed
    raise ValueError("no token")


RIGHT = {
    "agent.schema": [problems_by_stack, problems_by_keyword],
    "agent.loop": [agent_by_results, agent_by_recursion],
    "agent.paths": [resolve_by_os, resolve_by_parts],
    "agent.permission": [permit_by_names, permit_by_split],
    "agent.run": [run_by_pieces, run_by_events],
    "agent.limits": [limits_by_max, limits_by_filter],
    "agent.facts": [facts_by_scan, facts_by_glob],
    "agent.prompt": [prompt_by_append, prompt_by_encoder],
    "agent.blocks": [CacheOfPrefixes, CacheTree],
    "agent.paid": [paid_by_cache, paid_by_formula],
    "agent.cut": [cut_by_sums, cut_by_queues],
    "agent.history": [fit_by_starts, fit_by_stack],
    "agent.session": [SessionOfBytes, SessionRewritten],
    "agent.mask": [tokens_by_reduce, tokens_by_prefixes],
}


# Wrong programs


def problems_of_one_level(schema: Mapping[str, Any], value: Any, path: str = "$") -> list[tuple[str, str]]:
    """Right where fields hold no objects and no arrays."""
    return [each for each in problems_by_stack(schema, value, path) if each[0].count(".") < 2 and "[" not in each[0]]


def agent_of_objects(
    model: Callable[..., Any], tools: Mapping[str, Any], messages: Sequence[dict[str, Any]], steps: int
) -> list[dict[str, Any]]:
    """Right where a reply has one call at most."""

    def first(messages: Any) -> Any:
        reply = model(messages)
        return {**reply, "calls": reply["calls"][:1]} if "calls" in reply else reply

    return agent_by_results(first, tools, messages, steps)


def resolve_without_links(root: Path, path: str, write: bool = False) -> Path:
    """Right where there are no links."""
    found = resolve_by_parts(Path(os.path.abspath(root)), os.path.normpath(path) if path.isprintable() else path, write)
    return Path(os.path.abspath(root / path)) if root.resolve() == root else found


def permit_of_one_word(command: str, allowed: Mapping[str, Sequence[str]], root: Path) -> list[str]:
    """Right for commands of one word."""
    if command.split()[1:2] and " ".join(command.split()[:2]) in allowed:
        raise Refused("two words")
    return permit_by_names(command, allowed, root)


def facts_of_few_files(root: Path, most: int) -> dict[str, Any]:
    """Right where all files may be listed."""
    return facts_by_scan(root, 1000)


class CacheOfTheLast(CacheOfPrefixes):
    """Right where only the last prompt's blocks come again."""

    def read(self, ids: Sequence[int], salt: str = "") -> int:
        reused = super().read(ids, salt)
        self.seen = {
            start for start in self.seen if list(start[1:]) == list(ids[: len(start) - 1]) and start[0] == salt
        }
        return reused


def cut_of_short_lines(text: str, most: int, count: Callable[[str], int]) -> str:
    """Right where a line has fewer tokens than the budget."""
    lines = [line for line in text.split("\n") if count(line) <= most]
    return cut_by_sums("\n".join(lines), most, count)


def tokens_of_letters(automaton: Any, state: int, vocabulary: Sequence[bytes], end: int) -> dict[int, int]:
    """Right where tokens have two bytes at most."""
    return tokens_by_reduce(automaton, state, [text[:2] for text in vocabulary], end)


BY_CHANCE = {
    "agent.schema": [problems_of_one_level],
    "agent.loop": [agent_of_objects],
    "agent.paths": [resolve_without_links],
    "agent.permission": [permit_of_one_word],
    "agent.facts": [facts_of_few_files],
    "agent.blocks": [CacheOfTheLast],
    "agent.cut": [cut_of_short_lines],
    "agent.mask": [tokens_of_letters],
}


# What is said of wrong programs


def resolve_as_text(root: Path, path: str, write: bool = False) -> Any:
    return str(resolve_by_os(root, path, write))


def problems_as_words(schema: Mapping[str, Any], value: Any, path: str = "$") -> Any:
    return "; ".join(f"{where}: {keyword}" for where, keyword in problems_by_stack(schema, value, path))


def fit_by_messages(messages: Sequence[dict[str, Any]], most: int, count: Callable[[str], int]) -> list[dict[str, Any]]:
    """Everything but the second message."""
    return [*messages[:1], *messages[2:]]


TOLD = [
    Told("agent.paths", resolve_as_text, ["it returned a str, where a Path belongs"]),
    Told("agent.schema", problems_as_words, ["problems returned a str, where a list belongs"]),
    Told("agent.history", fit_by_messages, ["event 1 of", "belongs there"]),
    Told(
        "agent.permission",
        Change("agent.paths", "Path(os.path.realpath(root / path))", "root / path"),
        ["Mend `agent.paths` first"],
    ),
    Told(
        "agent.loop",
        Change("agent.schema", 'found.append((path, "type"))', "pass"),
        ["Mend `agent.schema` first"],
    ),
]


RERUNS = {
    "with other programs for all exercises": Rerun(
        {name: programs[0] for name, programs in RIGHT.items()},
        shows=["in front", "attacks, "],
        skip="subprocess.run(",
    ),
}
