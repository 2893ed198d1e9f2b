"""What is right for 14-agent: the library jsonschema, and brute force over trees, texts and languages. All give transcripts.

test_agent.py holds what is right of masks to outlines-core and llguidance, where they are installed.
"""

import itertools
import json
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from .drives import counter, told

# Calls


def found_problems(schema: Mapping[str, Any], value: Any) -> list[list[str]]:
    """What jsonschema finds, sorted. Its integers are made stricter: 1.0 is none."""
    from jsonschema import Draft202012Validator, validators  # type: ignore[import-untyped]

    kinds = Draft202012Validator.TYPE_CHECKER.redefine(
        "integer", lambda _, x: isinstance(x, int) and not isinstance(x, bool)
    )
    found = []
    for error in validators.extend(Draft202012Validator, type_checker=kinds)(schema).iter_errors(value):
        path, keyword = error.json_path, str(error.validator)
        path = "$" + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in error.absolute_path)
        if keyword == "required":
            missing = next(n for n in error.validator_value if n not in error.instance and repr(n) in error.message)
            found.append([f"{path}.{missing}", keyword])
        elif keyword == "additionalProperties":
            known = error.schema.get("properties", {})
            found += [[f"{path}.{name}", keyword] for name in error.instance if name not in known]
        else:
            found.append([path, keyword])
    return sorted(found)


def right_problems(schema: Any, values: list[Any]) -> Tensor:
    return told([{"value": value, "problems": found_problems(schema, value)} for value in values])


def right_conversation(schemas: Any, replies: list[Any], task: str, steps: int, says: list[str]) -> Tensor:
    """A turn at a time: what the model reads, what runs, and the results."""
    events: list[Any] = []
    new: list[Any] = [{"role": "user", "content": task}]
    count, called, going = 1, [], True
    for reply in replies[:steps]:
        events.append({"model reads": new, "of": count})
        answer = {"role": "assistant", "content": "", **reply}
        new = [answer]
        for call in reply.get("calls", []):
            name, arguments = call["name"], call["arguments"]
            content = "error"
            try:
                value = json.loads(arguments) if isinstance(arguments, str) else arguments
            except json.JSONDecodeError:
                value = None
            if name in schemas and value is not None:
                called.append((name, value))
                if sum(each == (name, value) for each in called) >= 3:
                    content = "refused"
                elif not found_problems(schemas[name], value):
                    events.append({"runs": name, "with": value})
                    ends = {None: f"{name} ran", "Refused": "refused"}
                    content = ends.get(schemas[name].get("raises"), "error")
                    if "gives" in schemas[name]:
                        gives = schemas[name]["gives"]
                        content = str(len(events) if gives == "a number" else gives)
            new.append({"role": "tool", "id": call["id"], "content": content})
        count += len(new)
        going = bool(reply.get("calls"))
        if not going:
            break
    told_off = ("error", "refused")
    errors = sum(m.get("role") == "tool" and m["content"] in told_off for m in new)
    errors += sum(m.get("content") in told_off for event in events for m in event.get("model reads", []))
    named = [True] * min(len(says), errors)
    return told([*events, {"ends with": new, "of": count}, {"errors name": named, "input changed": False}])


# Paths: by hand over the tree, part by part


def walked(tree: Mapping[str, Any], path: str, links: int = 0) -> str | None:
    """Where an absolute path leads, below TOP or elsewhere; None where links loop."""
    if links > 40:
        return None
    at: list[str] = []
    parts = [part for part in path.split("/") if part not in ("", ".")]
    for i, part in enumerate(parts):
        if part == "..":
            at = at[:-1]
            continue
        here = "/".join([*at[1:], part]) if at[:1] == ["TOP"] else ""
        content = tree.get(here)
        if isinstance(content, dict):
            to = content["link"]
            start = "" if to.startswith("TOP") else "/".join(at) + "/"
            return walked(tree, "/".join([start + to, *parts[i + 1 :]]), links + 1)
        at.append(part)
    return "/".join(at)


def allowed_path(tree: Mapping[str, Any], inside: str, path: str, write: bool) -> str | None:
    """Where a path leads if it may be used."""
    if re.search(r"[\x00-\x1f]", path):
        return None
    root = walked(tree, f"TOP/{inside}") or ""
    start = path if path.startswith(("TOP", "/")) else f"{root}/{path}"
    target = walked(tree, start)
    if path.startswith("/") or target is None or not f"{target}/".startswith(f"{root}/"):
        return None
    if write and {".git", ".agent"} & set(target[len(root) :].lower().split("/")):
        return None
    return target


def right_paths(tree: Any, inside: str, asked: list[Any], later: Mapping[str, Any] | None = None) -> Tensor:
    events: list[Any] = []
    for now in [tree, {**tree, **later}] if later else [tree]:
        events += [{"now there is": name} for name in now if name not in tree]
        events += [{"path": p, "write": w, "gives": allowed_path(now, inside, p, w) or "refused"} for p, w in asked]
    return told(events)


def allowed_words(tree: Any, inside: str, allowed: Mapping[str, Sequence[str]], command: str) -> list[str] | None:
    if set(command) & set(";&|<>`$\n\r"):
        return None
    lexer = shlex.shlex(command, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters = True, ""
    try:
        words = list(lexer)
    except ValueError:
        return None
    names = [name for name in allowed if " ".join(words[: len(name.split())]) == name]
    if not words or not names:
        return None
    name = max(names, key=len)
    for each in words[len(name.split()) :]:
        option, _, value = each.partition("=")
        if each[:1] == "-" and option not in allowed[name]:
            return None
        paths = [value] if each[:1] == "-" else [each]
        if any(allowed_path(tree, inside, path, False) is None for path in paths):
            return None
    return words


def right_commands(tree: Any, inside: str, allowed: Any, commands: list[str]) -> Tensor:
    events = []
    for command in commands:
        words = allowed_words(tree, inside, allowed, command)
        events.append({"command": command, "gives": "refused" if words is None else words})
    return told(events)


def right_run(argv: list[str], seconds: float, most: int, script: Mapping[str, Any]) -> Tensor:
    content = (script["output"] * script.get("times", 1)).encode("latin-1")
    stopped = "time" if script.get("hangs") else "output" if len(content) > most else None
    asks = ("no input", "errors with the output", "piped", "session of its own")
    events: list[Any] = [{"starts": argv, "shell": False, "folder": "folder", **dict.fromkeys(asks, True)}]
    if stopped or script.get("leaves"):
        events.append({"kills the group": True, "with": 9, "still running": stopped is not None})
    text = content[:most].decode("utf-8", "replace")
    given = {"code": -9 if stopped else script["code"], "output": text, "stopped": stopped}
    return told(
        [*events, given, {"not waited for": [], "others left": False, "read too much": False, "threads left": False}]
    )


def right_limits(asked: list[Any]) -> Tensor:
    events = []
    for parent, steps, tools in asked:
        gets: Any = {"depth": parent["depth"] - 1, "steps": steps, "tools": [t for t in parent["tools"] if t in tools]}
        while gets["steps"] * 2 > parent["steps"]:
            gets["steps"] -= 1
        if gets["depth"] < 0 or gets["steps"] <= 0 or gets["tools"] == []:
            gets = "refused"
        events.append({"parent": parent, "asks": [steps, tools], "gets": gets, "parent changed": False})
    return told(events)


# What the model reads


def facts_of(tree: Mapping[str, Any], inside: str, most: int) -> list[dict[str, Any]]:
    inside = (walked(tree, f"TOP/{inside}") or "").removeprefix("TOP/")
    names = [
        name.removeprefix(f"{inside}/")
        for name, content in tree.items()
        if isinstance(content, str) and name.startswith(f"{inside}/")
    ]
    files = sorted(name for name in names if not re.search(r"(^|/)\.", name))
    lines = tree.get(f"{inside}/.git/HEAD", "").split("\n")
    on_branch = lines[0].startswith("ref: refs/heads/") and lines[1:] in ([], [""])
    facts = {
        "branch": lines[0].removeprefix("ref: refs/heads/") if on_branch else None,
        "files": files[:most],
        "more": len(files) - len(files[:most]),
    }
    return sorted(({name: value} for name, value in facts.items()), key=str)


def right_facts(tree: Mapping[str, Any], inside: str, most: int, later: Mapping[str, Any] | None = None) -> Tensor:
    events = facts_of(tree, inside, most)
    if later:
        events += [{"now there is": name} for name in later]
        events += facts_of({**tree, **later}, inside, most)
    return told(events)


def right_prompts(rules: str, turns: list[Any]) -> Tensor:
    events: list[Any] = []
    for tools, history, state in turns:
        by_name = {tool["name"]: json.dumps(dict(sorted(tool.items())), sort_keys=True) for tool in tools}
        system = "".join([rules, *("\n" + by_name[name] for name in sorted(by_name))])
        events.append({"role": "system", "content": system})
        events += history
        events.append({"role": "user", "content": f"State: {json.dumps(state, sort_keys=True)}"})
        events.append({"messages": len(history) + 2, "given changed": False})
    return told(events)


def right_reuse(size: int, prompts: list[Any]) -> Tensor:
    """The longest start that it shares with any earlier prompt of the same salt, in full blocks."""
    events = []
    for n, (salt, ids) in enumerate(prompts):
        shared = [0]
        for other, before in prompts[:n]:
            full = before[: len(before) - len(before) % size]
            if other == salt:
                shared.append(
                    next(
                        (i for i, pair in enumerate(zip(ids, full, strict=False)) if len(set(pair)) > 1),
                        min(len(ids), len(full)),
                    )
                )
        reused = max(shared) - max(shared) % size
        events.append({"prompt": n, "tokens": len(ids), "reused": reused - size if reused == len(ids) else reused})
    return told(events)


def right_paid(asked: list[Any]) -> Tensor:
    """By arithmetic: at each turn the full blocks of the turn before, up to the time, need not be computed."""
    events = []
    for first, step, turns, stamp, front, size in asked:
        paid = 0
        for turn in range(1, turns + 1):
            length = first + turn * step + stamp
            same = 0 if turn == 1 or (front and stamp) else first + (turn - 1) * step
            before = first + (turn - 1) * step + stamp
            reused = min(same, before) // size * size
            paid += length - (reused - size if reused == length else reused)
        events.append({"asked": [first, step, turns, stamp, front, size], "tokens": paid})
    return told(events)


def right_cuts(texts: list[str], most: int, kind: str) -> Tensor:
    """All ways to keep a head and a tail; the longest head that is allowed, then the longest tail."""
    count, events = counter(kind), []
    for text in texts:
        lines = [line + "\n" for line in text.split("\n")]
        lines[-1] = lines[-1][:-1]
        lines = lines if lines[-1] else lines[:-1]
        n, tokens = len(lines), [count(line) for line in lines]
        if sum(tokens) > most:
            head = max(i for i in range(n + 1) if sum(tokens[:i]) <= most // 5)
            tail = max(i for i in range(n + 1) if sum(tokens[n - i :]) <= most - sum(tokens[:head]))
            gone = tokens[head : n - tail]
            lines[head : n - tail] = [f"[{len(gone)} lines, {sum(gone)} tokens left out]\n"]
        events.append({"most": most, "gives": "".join(lines)})
    return told(events)


def right_histories(messages: list[Any], limits: list[int], kind: str) -> Tensor:
    """The longest end that may be kept: it begins with no result, and fits beside the task."""
    count, events = counter(kind), []
    heads = [i for i, message in enumerate(messages) if message["role"] != "tool"]
    task = messages[: heads[1]] if len(heads) > 1 else messages

    def cost(part: list[Any]) -> int:
        return sum(count(message["content"]) for message in part)

    for most in limits:
        starts = [i for i in heads[1:] if i == heads[-1] or cost(task) + cost(messages[i:]) <= most]
        sent = task + (messages[min(starts) :] if starts else [])
        events.append({"most": most, "sends": [message["content"] for message in sent]})
    return told(events)


def unanswered(messages: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The results that interrupted calls get."""
    content = "error: interrupted; look at what it did before you try again"
    return [
        {"role": "tool", "id": call["id"], "content": content}
        for i, message in enumerate(messages)
        for call in message.get("calls", [])
        if not any(later["role"] == "tool" and later["id"] == call["id"] for later in messages[i + 1 :])
    ]


def right_sessions(lines: list[Any], torn: str, appended: list[Any]) -> Tensor:
    first = [*lines, *unanswered(lines)]
    all_of_them = [*first, *appended]
    again = [*appended, *unanswered(all_of_them)]
    events: list[Any] = [{"loads": message} for message in first]
    events += [{"appends": message, "written at once": True} for message in appended]
    events += [{"loads again": message} for message in again]
    events.append({"another object loads the same": True})
    total = len(first) + len(again)
    return told([*events, {"lines": total, "ends with a line break": total > 0}])


# Languages


def automaton(pattern: str, letters: str, prefixes: Sequence[str]) -> tuple[list[Any], list[int], list[int]]:
    """An automaton for a regular expression: states are told apart by which short texts may follow.

    Gives pairs of letter and state for each state, the complete states, and the states after the prefixes.
    """
    ends = ["".join(end) for n in range(6) for end in itertools.product(letters, repeat=n)]

    def kind(prefix: str) -> frozenset[str]:
        return frozenset(end for end in ends if re.fullmatch(pattern, prefix + end))

    waiting, known = [""], {kind(""): 0}
    step: list[Any] = []
    for prefix in waiting:  # it grows
        step.append([])
        for letter in letters:
            following = kind(prefix + letter)
            if not following:
                continue
            if following not in known:
                known[following] = len(waiting)
                waiting.append(prefix + letter)
            step[-1].append([letter, known[following]])
    final = [i for i, prefix in enumerate(waiting) if re.fullmatch(pattern, prefix)]
    return step, final, [known[kind(prefix)] for prefix in prefixes]


def right_tokens(step: Any, final: Any, states: Any, vocabulary: Any, end: int, later: Any = None) -> Tensor:
    events = tokens_after(step, final, states, vocabulary, end)
    if later:
        events += ["another vocabulary", *tokens_after(step, final, states, *later)]
    return told(events)


def tokens_after(step: Any, final: Any, states: Any, vocabulary: Any, end: int) -> list[Any]:
    """By all the texts that lead on from a state, up to the length of the longest token, and their own ends."""
    longest = max(map(len, vocabulary))
    events: list[Any] = []
    for state in states:
        texts = {"": state}
        for _ in range(longest):
            texts |= {text + chr(byte): to for text, at in texts.items() for byte, to in step[at]}
        allowed = [[i, texts[text]] for i, text in enumerate(vocabulary) if i != end and text and text in texts]
        allowed += [[end, state]] if state in final else []
        events.append(
            {"state": state, "allowed": sorted(allowed)} if allowed else {"state": state, "raises": "ValueError"}
        )
    return events
