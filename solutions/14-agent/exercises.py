"""What the exercises of 14-agent are checked against: the library jsonschema, and brute force (reference.py)."""

import itertools
import re
from collections.abc import Sequence
from typing import Any

import torch

from grader.authoring.kit import Case, Draw, Exercise, with_mistakes

from . import drives, reference

EVENTS: dict[str, Any] = {"function": True, "differentiable": False, "axes": "events"}


# Values that vary


def word(draw: Draw, letters: int = 5) -> str:
    """A random word of small letters."""
    return "".join(chr(97 + i) for i in torch.randint(26, (letters,), generator=draw.generator).tolist())


def number(draw: Draw, low: int, high: int) -> int:
    return int(torch.randint(low, high + 1, (1,), generator=draw.generator))


def filled(draw: Draw, value: Any) -> Any:
    """A value with random words in place of <a>, <b>, ... in its texts, and random numbers in place of "<12-34>"."""
    words: dict[str, str] = {}

    def fill(part: Any) -> Any:
        if isinstance(part, dict):
            return {fill(key): fill(item) for key, item in part.items()}
        if isinstance(part, list | tuple):
            return [fill(item) for item in part]
        if not isinstance(part, str):
            return part
        if bounds := re.fullmatch(r"<(\d+)-(\d+)>", part):
            return number(draw, int(bounds[1]), int(bounds[2]))
        return re.sub("<([a-z])>", lambda found: words.setdefault(found[1], word(draw)), part)

    return fill(value)


def text_case(name: str, *args: Any, **more: Any) -> Case:
    """A case whose arguments are filled."""
    return Case(name, lambda draw: filled(draw, args), **more)


# Calls


def an_object(required: Sequence[str] = (), closed: bool = False, **properties: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(required)}
    return schema | {"additionalProperties": False} if closed else schema


STRING, INTEGER, NUMBER, TRUTH = ({"type": kind} for kind in ("string", "integer", "number", "boolean"))

SCHEMA = Exercise(
    name="agent.schema",
    solution="problems",
    reference=reference.right_problems,
    drive=drives.problems_found,
    points=6,
    **EVENTS,
    cases=[
        text_case(
            "a string and an integer",
            an_object(["<a>"], **{"<a>": STRING, "<b>": INTEGER}),
            [
                {"<a>": "<c>", "<b>": "<1-99>"},
                {"<a>": "<1-99>", "<b>": "<d>"},
                {"<b>": 3},
                {"<a>": "<c>"},
                {},
                "<c>",
                None,
                ["<a>"],
            ],
        ),
        text_case(
            "truth values are no numbers",
            an_object(**{"<a>": INTEGER, "<b>": NUMBER, "<c>": TRUTH}),
            [
                {"<a>": True, "<b>": False, "<c>": True},
                {"<a>": 1, "<b>": 1.5, "<c>": 0},
                {"<a>": 2.5, "<b>": "<7-9>", "<c>": "<d>"},
                {"<a>": 2.0, "<b>": 2.0},
                {"<a>": False, "<b>": 0, "<c>": False},
            ],
        ),
        text_case(
            "allowed values",
            an_object(
                **{
                    "<a>": {"enum": ["<b>", 1, None, False, {"m<f>": 1, "k": 2, "z": 3}]},
                    "<c>": {"type": "string", "enum": ["<d>", "<e>"]},
                    "<g>": {"enum": []},
                }
            ),
            [
                {"<a>": "<b>", "<c>": "<d>"},
                {"<a>": "<d>", "<c>": "<b>"},
                {"<a>": True},
                {"<a>": 1},
                {"<a>": "1"},
                {"<a>": 0, "<c>": 4},
                {"<a>": False},
                {"<a>": None, "<c>": "<e>"},
                {"<a>": ["<b>"]},
                {"<a>": {"z": 3, "m<f>": 1, "k": 2}},
                {"<a>": {"z": 3, "m<f>": True, "k": 2}},
                {"<g>": "<b>"},
            ],
        ),
        text_case(
            "unknown fields, forbidden and not",
            {
                "type": "object",
                "properties": {"<a>": an_object(["<b>"], True, **{"<b>": STRING}), "<c>": an_object(**{"<d>": STRING})},
                "additionalProperties": True,
            },
            [
                {"<a>": {"<b>": "x", "<e>": 1, "<f>": 2}, "<c>": {"<g>": 3}, "<h>": 4},
                {"<a>": {}, "<c>": {}},
                {"<a>": {"<e>": 1}},
                {"<a>": "<b>", "<c>": {"<d>": ["<e>"]}},
            ],
        ),
        text_case(
            "arrays, and objects in them",
            an_object(
                ["<a>"],
                **{
                    "<a>": {"type": "array", "items": an_object(["<b>"], True, **{"<b>": INTEGER})},
                    "<c>": {"type": "array", "items": {"type": "array", "items": STRING}},
                    "<d>": {"type": "array"},
                },
            ),
            [
                {"<a>": [{"<b>": "<1-9>"}, {"<b>": "x"}, {}, {"<b>": 1, "<e>": 2}, 5]},
                {"<a>": [], "<c>": [["x"], ["y", 2, 2], "z"], "<d>": [1, "x"]},
                {"<a>": {"<b>": 1}},
                {"<c>": []},
            ],
        ),
        text_case(
            "several things at once",
            an_object(
                ["<a>", "<b>", "<c>"],
                True,
                **{
                    "<a>": {"type": "integer", "enum": ["<3-9>", 2]},
                    "<b>": NUMBER,
                    "<f>": an_object(["<h>"], **{"<g>": STRING}) | {"enum": [{"<g>": "x", "<h>": 1}]},
                },
            ),
            [
                {"<a>": "<d>", "<e>": 1},
                {"<a>": 12, "<b>": None},
                {"<a>": 2, "<b>": 1, "<c>": 0},
                {"<a>": True, "<b>": [1], "<c>": {}},
                {"<f>": {"<g>": 2}},
            ],
        ),
        text_case(
            "a schema without keywords, or with one alone",
            {
                "properties": {
                    "<a>": {},
                    "<b>": {"required": ["<c>"]},
                    "<d>": {"items": STRING},
                    "<f>": {"type": "object", "additionalProperties": False},
                    "<g>": {"properties": {"<h>": {}}, "additionalProperties": {}},
                    "<i>": {"properties": {"<j>": {}}, "additionalProperties": False},
                }
            },
            [
                {"<a>": [1], "<b>": {}, "<d>": [1]},
                {"<b>": "<c>", "<d>": {"x": 1}},
                "<a>",
                12,
                {"<b>": {"<c>": None}, "<e>": 1},
                {"<f>": {"<c>": 1}, "<g>": {"<c>": 1}},
                {"<f>": {}, "<g>": {"<h>": 1}},
                {"<i>": {"<j>": 1}},
            ],
        ),
    ],
)

READ = an_object(["path"], True, path=STRING, lines=INTEGER)
PLAIN = an_object()


def calls(*each: Any) -> dict[str, Any]:
    """A reply with calls: an id, a name, and arguments."""
    return {"content": "", "calls": [{"id": i, "name": name, "arguments": arguments} for i, name, arguments in each]}


LOOP = Exercise(
    name="agent.loop",
    solution="run_agent",
    reference=reference.right_conversation,
    drive=drives.conversation,
    points=8,
    uses=["agent.schema"],
    **EVENTS,
    cases=[
        text_case("two calls, then an answer", {"read": READ, "<a>": PLAIN},
                  [calls(("1", "read", {"path": "<b>"})), calls(("2", "<a>", {})), {"content": "<c>"}, {"content": "never"}], "<d>", "<6-9>", []),
        text_case("several calls in one reply, and a number as result", {"read": READ, "<a>": PLAIN | {"gives": "a number"}},
                  [calls(("<b>", "<a>", {"<c>": 1}), ("<d>", "read", {"path": "<e>", "lines": "<1-9>"}), ("<f>", "<a>", {})), {"content": "<g>", "calls": []}], "<h>", "<3-5>", []),
        text_case("no such tool, wrong arguments, and a right call after them", {"read": READ, "<a>": PLAIN},
                  [calls(("1", "<b>", {})), calls(("2", "read", {"file": "x"}), ("3", "read", {"path": "x", "lines": "2"})), calls(("4", "read", {"path": "<c>"})), {"content": "<d>"}],
                  "<e>", "<7-9>", ["<a> read", "path file", "lines"]),
        text_case("arguments as JSON text, right and wrong", {"read": READ, "<a>": PLAIN},
                  [calls(("1", "read", '{"path": "<b>", "lines": 2}'), ("2", "read", '{"path": "<b>'), ("3", "read", '["<b>"]'), ("4", "<a>", "{}"), ("5", "read", "{}")), {"content": "<c>"}],
                  "<d>", "<3-6>", []),
        text_case("a tool that breaks, and one that refuses", {"<a>": PLAIN | {"raises": "an error"}, "<b>": PLAIN | {"raises": "Refused"}, "read": READ},
                  [calls(("1", "<a>", {"<c>": 1}), ("2", "<b>", {}), ("3", "read", {"path": "<d>"})), {"content": "<e>"}], "<f>", "<4-7>", ["broke", "may"]),
        text_case("the model never stops: 3 steps", {"read": READ}, [calls((str(i), "read", {"path": f"<{'abcde'[i]}>"}), (f"{i}+", "<f>", {})) for i in range(5)], "<g>", 3, []),
        text_case("one step", {"<a>": PLAIN}, [calls(("1", "<a>", {"<b>": 1})), {"content": "<c>"}], "<d>", 1, []),
        text_case("the same call four times", {"read": READ, "<a>": PLAIN},
                  [calls(("1", "read", {"path": "<b>"})), calls(("2", "read", '{"path": "<b>"}'), ("3", "<a>", {"path": "<b>"})), calls(("4", "read", {"path": "<b>"}), ("5", "read", {"path": "<c>"})),
                   calls(("6", "read", {"path": "<b>"}), ("7", "<a>", {"path": "<b>"})), {"content": "<d>"}], "<e>", "<6-9>", []),
        text_case("the same failing calls again and again", {"<a>": PLAIN | {"raises": "an error"}, "read": READ},
                  [calls((f"{i}", "<a>", {"<b>": 1}), (f"{i}+", "read", {"path": 2}), (f"{i}++", "<c>", {}), (f"{i}+++", "read", "{")) for i in range(4)] + [{"content": "<e>"}], "<d>", "<4-9>", []),
        text_case("results that are 0, false, and an empty list", {"<a>": PLAIN | {"gives": 0}, "<b>": PLAIN | {"gives": False}, "<c>": PLAIN | {"gives": []}},
                  [calls(("1", "<a>", {}), ("2", "<b>", {}), ("3", "<c>", {})), {"content": "<d>"}], "<e>", "<2-4>", []),
        text_case("the same call four times in one reply", {"<a>": PLAIN}, [calls(*((str(i), "<a>", text) for i, text in enumerate(['{"<b>": 1, "<e>": [2]}', '{"<e>": [2], "<b>": 1}'] * 2))), {"content": "<c>"}], "<d>", "<2-4>", []),
    ],
)  # fmt: skip

# What a tool may do

TREE = {
    "work/<a>.txt": "a", "work/<b>/<c>.md": "c", "work-<d>/<e>.txt": "e", "<f>.txt": "secret", "work/.git/config": "", "work/.agent/allowed": "", ".agent/.git/<a>.txt": "", ".agent/allowed": "",
    "work/to_file": {"link": "../<f>.txt"}, "work/to_folder": {"link": "TOP"}, "work/to_inside": {"link": "<b>"}, "work/to_new": {"link": "../<g>.txt"},
    "work/to_git": {"link": ".git"}, "work/one": {"link": "two"}, "work/two": {"link": "one"}, "linked": {"link": "work"},
}  # fmt: skip


def asked(write: bool, *paths: str) -> list[Any]:
    return [[path, write] for path in paths]


def paths_case(name: str, inside: str, paths: Sequence[Any], *later: Any, tree: Any = TREE) -> Case:
    return text_case(name, tree, inside, list(paths), *later)


CHAIN = {
    "work/<a>.txt": "",
    "work/10": {"link": "<a>.txt"},
    **{f"work/{n}": {"link": str(n + 1)} for n in range(1, 10)},
}


PATHS = Exercise(
    name="agent.paths",
    solution="resolve",
    reference=reference.right_paths,
    drive=drives.paths_resolved,
    points=8,
    **EVENTS,
    cases=[
        paths_case("files and folders of the workspace", "work", asked(False, "<a>.txt", "./<b>/<c>.md", "<b>/../<a>.txt", "<b>", ".", "TOP/work/<a>.txt", "<x>/<y>.txt", "<a>.txt/", "..<x>", "<b>/...")),
        paths_case("out of it by .. and by absolute paths", "work", asked(False, "../<f>.txt", "<b>/../../<f>.txt", "TOP/<f>.txt", "/etc/passwd", "..", "TOP", "../work/<a>.txt", "<x>/../../<f>.txt")),
        paths_case("a sibling whose name begins like the workspace's", "work", asked(False, "../work-<d>/<e>.txt", "TOP/work-<d>/<e>.txt", "../work-<d>", "../work")),
        paths_case("links", "work", [*asked(False, "to_file", "to_folder/<f>.txt", "to_inside/<c>.md", "to_folder/work/<a>.txt", "to_folder", "to_folder/../<a>.txt"), *asked(True, "to_file", "to_inside/<x>.txt")]),
        paths_case("a link to a file that does not exist yet, and a loop", "work", [*asked(True, "to_new"), *asked(False, "to_new", "one", "two/<a>.txt", "<a>.txt")]),
        paths_case("a chain of ten links", "work", [*asked(False, "1", "4"), *asked(True, "2")], tree=CHAIN),
        paths_case("a link that is made between two calls", "work", [*asked(False, "<x>", "<x>/<e>.txt"), *asked(True, "<x>")], {"work/<x>": {"link": "../<d>"}}, tree={"<d>/<e>.txt": "", "work/<a>": ""}),
        paths_case("characters that stand for themselves", "work", [*asked(False, " <a>.txt", "<a>.txt ", "<b>\\<c>.md", "..\\<x>", "$HOME/<x>", "~/<x>", "<x>\u00a0", "\u007f", "u\u0308", "%41", "*"), *asked(True, ".git ")], tree={"work/<a>.txt": ""}),
        paths_case("control characters", "work", asked(False, "<a>\n.txt", "<a>\x00.txt", "<b>/\x1b[2J", "<a>\t", "\r<a>.txt", "<a> .txt", "<b>/\x1f", "<b>/ü")),
        paths_case("places that are closed to writing", "work", [*asked(True, ".git/hooks/<x>", ".git", ".GIT/config", "<b>/.git/<x>", "<b>/<z>/<z>/.git/<x>", ".agent/allowed", ".Agent", "to_git/<x>", ".gitignore", ".github/<x>", "<a>.txt", "<b>/<y>"),
                                                                 *asked(False, ".git/config", ".agent/allowed")]),
        paths_case("the workspace is behind a link", "linked", [*asked(False, "<a>.txt", "../<f>.txt", "to_file", "TOP/work/<a>.txt", "TOP/linked/<b>"), *asked(True, ".git/<x>", "<x>")]),
        paths_case("the workspace lies in a folder named .agent", ".agent/.git", [*asked(True, "<a>.txt", ".git/<x>", ".agent", "../<b>"), *asked(False, "../allowed")]),
    ],
)  # fmt: skip

ALLOWED = {
    "ls": ["-l", "-a", "--color"],
    "cat": [],
    "git log": ["--oneline", "-n"],
    "git diff": ["--stat", "--file"],
    "grep": ["-n", "-i"],
}


def commands_case(name: str, *commands: str, inside: str = "work", allowed: Any = ALLOWED) -> Case:
    return text_case(name, TREE, inside, allowed, list(commands))


PERMISSION = Exercise(
    name="agent.permission",
    solution="permit",
    reference=reference.right_commands,
    drive=drives.commands_permitted,
    points=8,
    uses=["agent.paths"],
    **EVENTS,
    cases=[
        commands_case("allowed commands", "ls", "ls -l <b>", "cat <a>.txt <b>/<c>.md", "git log --oneline", 'grep -n "<x> <y>" <a>.txt', "ls -a -l", "cat '<x> y'", "ls  -l\t<b>", "cat .git/config", "cat <a>(1).txt", "grep -n <x>* <a>.txt", "cat \"<x>'s <y>\""),
        commands_case("other commands", "rm <a>.txt", "git push", "git", "gitlog", "", "   ", "ls-<x>", "LS", "/bin/ls", "<x>", "git log-<x>", "'git' log"),
        commands_case("more than one command", "ls; rm <a>.txt", "ls && rm <x>", "ls | sh", "ls\nrm <a>.txt", "ls `rm <x>`", "ls $(rm <x>)", "ls &", "ls\r<x>", "cat <a>.txt > <x>", "cat < <a>.txt", 'grep "<x>|<y>" <a>.txt', "ls $HOME", "ls -l\n"),
        commands_case("options", "ls -R", "ls -la", "git log --output=<x>", "git log -n", "git diff --stat=<x>", "git diff --file=<a>.txt", "grep -f <a>.txt", "ls --", "ls --color=<x>", "ls --colors", "git log --stat", "cat -n <a>.txt", "ls -", "git diff --stat --oneline", "git log <a>.txt --output=<x>", "ls <b> -R", "grep <x> -n -f", "git log -5", "ls -L", "git log -N", "grep -I <x>"),
        commands_case("paths that lead out", "cat ../<f>.txt", "cat TOP/<f>.txt", "ls ..", "cat to_file", "ls to_folder", "cat /etc/passwd", "git diff --file=../<f>.txt", "git diff --file=to_file", "git diff --file=to_file <a>.txt", "grep -n <x> ../<f>.txt", "grep -n ../<f>.txt", "cat to_inside/<c>.md", "cat <a>.txt ../<f>.txt", "cat ../<f>.txt <a>.txt", "git diff --file=TOP/work/<a>.txt", "ls ../<x>", "cat to_new", "git diff --file=<x>=/../../<f>.txt", "ls one", "cat <a>.txt <b>/<c>.md <a>.txt <a>.txt ../<f>.txt"),
        commands_case("quotes that are not closed", "cat '<a>.txt", 'grep "<x>', "cat <a>.txt\\", "ls '<b>'", "cat <b>/<c>'.md'"),
        commands_case("another list", "ls <a>.txt", "<p> -x", "<p> <q> -x", "<p> <q> -y", "<p> <q>", "<p> <r> -x", "<p> -y <q>", "/bin/<p> -x <a>.txt", "<p> <t> -x", "<p> <t> <a>.txt", allowed={"/bin/<p>": ["-x"], "<p> <t>": [], "<p>": ["-x"], "<p> <q>": ["-y", "-z"], "<p> <r> <s>": ["-x"]}),
    ],
)  # fmt: skip


def run_case(name: str, seconds: float, most: tuple[int, int], **script: Any) -> Case:
    def draw_args(draw: Draw) -> Sequence[Any]:
        limit = draw.number("most", most[0], most[0] - 3, most[1])
        if "more" in script:
            script["output"] = word(draw, limit + script["more"])
        return [[word(draw), "-x", word(draw)], seconds, limit, filled(draw, {"code": 0, **script})]

    return Case(name, draw_args)


RUN = Exercise(
    name="agent.run",
    solution="run",
    reference=reference.right_run,
    drive=drives.program_run,
    points=7,
    **EVENTS,
    cases=[
        run_case("a program that ends", 30.0, (100, 110), output="<a> <b>\n"),
        run_case("a program that fails", 31.0, (50, 60), output="<a>\n<b> failed", code="<1-99>"),
        run_case("a program that somebody else kills", 31.5, (40, 45), output="<a>", code=-9),
        run_case("no output at all", 32.0, (20, 25), output="", code="<2-9>"),
        run_case("a program that hangs", 0.05, (70, 80), output="<a>\n", hangs=True),
        run_case("it closes its output, and hangs", 0.06, (75, 85), output="<a>\n", hangs=True, closes=True),
        run_case("a program that writes without end", 33.0, (12, 15), output="<a> ", times=20_000),
        run_case("one byte more than is allowed", 34.0, (18, 28), more=1, code="<3-9>", late=True),
        run_case("as many bytes as are allowed", 35.0, (16, 26), more=0, code="<3-9>"),
        run_case("it leaves others behind", 36.0, (90, 99), output="<a>", leaves=True),
        run_case("bytes that are no UTF-8", 37.0, (40, 50), output="<a>\xff\xfe <b>", code="<1-9>"),
        run_case("a character is cut in two", 38.0, (7, 7), output="<a>x\xc3\xa4<b>", late=True),
    ],
)


def limits_case(name: str, *each: Any) -> Case:
    return text_case(name, [[{"depth": d, "steps": s, "tools": t}, n, names] for d, s, t, n, names in each])


LIMITS = Exercise(
    name="agent.limits",
    solution="child_limits",
    reference=reference.right_limits,
    drive=drives.limits_given,
    points=3,
    **EVENTS,
    cases=[
        limits_case("some of the parent's tools", ("<2-4>", 20, ["<a>", "<b>", "<c>"], "<3-9>", ["<c>", "<a>"]), (1, 9, ["<a>", "<b>"], 2, ["<b>"])),
        limits_case("more steps than the half", (2, "<21-29>", ["<a>"], 50, ["<a>"]), (1, 7, ["<a>"], 7, ["<a>"]), (3, 3, ["<b>"], 9, ["<b>"]), (2, 8, ["<b>"], 4, ["<b>"])),
        limits_case("tools that the parent lacks", (2, "<8-20>", ["<a>", "<b>"], 3, ["<d>", "<b>", "<a>_<c>"]), (1, 10, ["<a>"], 2, ["<c>"]), (1, 10, ["<a>"], 2, [])),
        limits_case("a tool that is asked for twice", ("<2-4>", 14, ["<a>", "<b>", "<c>"], "<3-7>", ["<c>", "<a>", "<c>"])),
        limits_case("tools in another order than the letters'", ("<2-4>", 30, ["m<a>", "z<b>", "c<c>"], "<3-9>", ["z<b>", "c<c>", "m<a>"])),
        limits_case("no depth, no steps", (0, 20, ["<a>"], 3, ["<a>"]), (2, 1, ["<a>"], 3, ["<a>"]), (2, 20, ["<a>"], 0, ["<a>"]), (2, 20, ["<a>"], -1, ["<a>"]), (1, 2, ["<a>"], 1, ["<a>"]), (2, "<11-19>", ["<a>"], 1, ["<a>"])),
    ],
)  # fmt: skip

# What the model reads

FACTS = Exercise(
    name="agent.facts",
    solution="workspace_facts",
    reference=reference.right_facts,
    drive=drives.facts_told,
    points=5,
    **EVENTS,
    cases=[
        text_case("files in folders, in build and node_modules as well", {"work/<a>.py": "", "work/build/<c>.py": "", "work/node_modules/<e>.md": "", "work/<b>/<c>.py": "", "work/<b>/<d>/__pycache__/<e>": "", "work/<b>/<d>/<f>/<g>": "", "work/<b>/<d>/<f>/<g>s/<h>/<i>/<j>/<k>": "", "work/Z.md": "", "work/<b>.py": ""}, "work", "<10-20>"),
        text_case("hidden files and folders, a branch", {"work/.<a>": "", "work/<b>/.<c>/<d>.py": "", "work/<b>/.<c>/<d>/<j>.py": "", "work/<b>/<e>.py": "", "work/.git/HEAD": "ref: refs/heads/<f>/<g>.1-#<k>\n", "work/.git/<h>": "", "work/<b>/.<i>": ""}, "work", "<5-9>"),
        text_case("links are not listed", {"work/<a>.py": "", "work/<b>": {"link": "TOP/<c>"}, "work/<d>": {"link": "../<c>/<e>.txt"}, "<c>/<e>.txt": "", "work/<f>": {"link": "<g>"}, "work/<h>/<i>.py": "", "work/<j>": {"link": "<h>"}, "work/<k>": {"link": "<a>.py"}}, "work", "<6-9>"),
        text_case("more files than are listed", {**{f"work/<{c}>.txt": "" for c in "abcdefg"}, "work/<h>/<i>.txt": "", "work/<j>": None}, "work", "<3-5>"),
        text_case("a branch that begins as its line does", {"work/.git/HEAD": "ref: refs/heads/feh/<f>\n", "work/<b>": ""}, "work", "<2-4>"),
        text_case("as many files as are listed", {"work/<a>": "", "work/<b>": "", "work/<c>/<d>": "", "work/.git/HEAD": "ref: refs/heads/<e>"}, "work", 3),
        text_case("no branch is checked out", {"work/.git/HEAD": "0123abcd<a>\n", "work/<b>": ""}, "work", "<2-4>"),
        text_case("a HEAD that names no branch", {"work/.git/HEAD": "ref: refs/remotes/<a>/<b>\n", "work/<c>": ""}, "work", "<2-4>"),
        text_case("a HEAD of two lines", {"work/.git/HEAD": "ref: refs/heads/<a>\nref: refs/heads/<b>\n", "work/<c>/<d>/<e>": ""}, "work", "<3-8>"),
        text_case("a file that is made between two calls", {"work/<a>": ""}, "work", "<3-6>", {"work/<b>": ""}),
        text_case("the workspace is behind a link", {"<a>/<b>": "", "work": {"link": "<a>"}}, "work", "<3-6>"),
        text_case("the workspace's own folder is hidden, names with spaces, line breaks and backslashes", {".<a>/<b> c.txt": "", ".<a>/<b>\\<h>": "", ".<a>/<d>\n<e>": "", ".<a>/ü": "", ".<a>/<f>/.git/HEAD": "ref: refs/heads/<g>\n"}, ".<a>", "<7-11>"),
    ],
)  # fmt: skip

TOOLS: list[dict[str, Any]] = [
    {
        "name": "<b>",
        "description": "<c> it",
        "parameters": {"type": "object", "properties": {"z": {"type": "string"}, "a": {"type": "integer"}}},
    },
    {"name": "<a>", "description": "<d>"},
]
SAID = [
    {"role": "user", "content": "<e>"},
    {"role": "assistant", "content": "<f>", "calls": [{"id": "1", "name": "<a>", "arguments": {}}]},
    {"role": "tool", "id": "1", "content": "<g>"},
]

PROMPT = Exercise(
    name="agent.prompt",
    solution="build_prompt",
    reference=reference.right_prompts,
    drive=drives.prompts_built,
    points=5,
    **EVENTS,
    cases=[
        text_case("a first turn", "<r> them.\nAlways.", [[TOOLS, SAID[:1], {"time": "<h>", "files": ["<i>", "<j>"]}]]),
        text_case("a second turn, with another state", "<r>", [[TOOLS, SAID[:1], {"time": "<h>"}], [TOOLS, SAID, {"time": "<i>", "branch": None, "a": {"z": 1, "b": "<3-99>"}}]]),
        text_case("tools and their fields in another order", "<r>", [[TOOLS, SAID, {"b": "<h>", "a": 1}], [[{key: tool[key] for key in reversed(tool)} for tool in reversed(TOOLS)], SAID, {"a": 1, "b": "<h>"}]]),
        text_case("tools whose fields stand in different orders, and a long history", "<r>",
                  [[[{"description": "<c>", "name": "b"}, {"name": "a", "description": "<d>"}], [{"role": "user", "content": f"<{'abcde'[i % 5]}> {i}"} for i in range(30)], {"a": "<h>"}]]),
        text_case("an answer of calls alone, without words", "<r>", [[TOOLS, [SAID[0], SAID[1] | {"content": ""}, SAID[2]], {"time": "<h>"}]]),
        text_case("a summary among the messages", "<r>", [[TOOLS[1:], [*SAID, {"role": "system", "content": "so far: <h>"}, SAID[0]], {"time": "<i>"}]]),
        text_case("no tools, no history, an empty state", "<r>", [[[], SAID[:1], {}], [TOOLS[:1], [], {}]]),
        text_case("names that sort otherwise with capitals, and letters beyond ASCII", "<r> ü", [[[{"name": "b"}, {"name": "B", "x": "ä"}, {"name": "a<a>"}, {"name": "Z"}], SAID[:2], {"ö": "<h>"}]]),
    ],
)  # fmt: skip


LATER = 60  # prompts that come after one of many blocks


def blocks_case(name: str, size: int, *prompts: Any) -> Case:
    """prompts: a salt, and pieces of ids: a letter and how many. The same letter is the same text from its start."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        texts: dict[Any, list[int]] = {letter: draw.tokens(500, 60).tolist() for letter in "abcdefg"}
        length = draw.number("length", 20 + len(name) % 7, 12, 50)
        texts["A"] = [texts["a"][i] for i in (0, 1, 3, 2, *range(4, 60))]
        for i in range(4):  # one token is another one
            texts["wxyz"[i]] = [token + (256 if i == n else 0) for n, token in enumerate(texts["a"])]
        ten, one = texts["a"][0] % 9 + 1, texts["a"][1] % 9 + 1
        texts["m"] = [ten * 10 + one, one, *texts["a"][2:]]  # the same digits, one behind the other
        texts["o"] = [token + 70_000 for token in texts["a"]]
        texts["n"] = [ten, one * 11, *texts["a"][2:]]
        texts["q"] = [one, *texts["m"][1:]]
        texts["l"] = draw.tokens(500, 1_100).tolist()
        for i in range(LATER):  # each begins with another token
            texts[i] = [600 + i, *texts["a"]]
        salts = filled(draw, ["", *(str(ten) if salt == "the first digit" else salt for salt, *_ in prompts)])
        ids = [
            list(itertools.chain(*(texts[letter][:count] for letter, count in pieces)))
            for _, *pieces in [("", ("g", length)), *prompts]
        ]
        made = list(map(list, zip(salts, ids, strict=True)))
        return [draw.size("size", size, size), made]

    return Case(name, draw_args)


BLOCKS = Exercise(
    name="agent.blocks",
    solution="PrefixCache",
    reference=reference.right_reuse,
    drive=drives.tokens_reused,
    points=6,
    **EVENTS,
    cases=[
        blocks_case("a prompt that grows", 4, ("", ("a", 10)), ("", ("a", 15)), ("", ("a", 15), ("b", 9)), ("", ("a", 15), ("b", 9), ("c", 5))),
        blocks_case("two tokens of a block are exchanged", 4, ("", ("a", 5)), ("", ("A", 5)), ("", ("a", 7))),
        blocks_case("a token at the front changes", 3, ("", ("a", 14)), ("", ("b", 1), ("a", 14)), ("", ("c", 1), ("a", 14)), ("", ("b", 1), ("a", 17))),
        blocks_case("a change in the middle", 5, ("", ("a", 30)), ("", ("a", 11), ("b", 1), ("c", 18)), ("", ("a", 30), ("d", 4)), ("", ("a", 10), ("e", 20))),
        blocks_case("the same prompt again, and parts of it", 6, ("", ("a", 18)), ("", ("a", 18)), ("", ("a", 12)), ("", ("a", 13)), ("", ("a", 6)), ("", ("a", 5)), ("", ("a", 19))),
        blocks_case("equal blocks at other places", 2, ("", ("a", 2), ("b", 2), ("c", 2)), ("", ("b", 2), ("a", 2), ("c", 2)), ("", ("a", 2), ("c", 2), ("b", 2)), ("", ("a", 2), ("a", 2), ("a", 3))),
        blocks_case("one token is another one", 4, ("", ("a", 9)), *[("", (letter, 9)) for letter in "wxyz"], ("", ("a", 13))),
        blocks_case("the same digits", 2, ("", ("m", 7)), ("", ("n", 7)), ("", ("m", 9))),
        blocks_case("ids from 70,000 on", 4, ("", ("o", 9)), ("", ("o", 11))),
        blocks_case("a salt as long as a block", 5, ("<s>", ("a", 10)), ("<s>", ("a", 10)), ("<s>", ("a", 12)), ("", ("a", 10))),
        blocks_case("salts", 7, ("<s>", ("a", 22)), ("<t>", ("a", 25)), ("", ("a", 21)), ("<s>", ("a", 25)), ("<t>", ("a", 14), ("b", 9)), ("", ("a", 22))),
        blocks_case("a salt is the first digit", 5, ("the first digit", ("q", 11)), ("", ("m", 12)), ("", ("m", 16))),
        blocks_case("known blocks, but not after these", 4, ("", ("a", 4), ("b", 4), ("c", 6)), ("", ("d", 4), ("b", 4), ("e", 6)), ("", ("a", 4), ("b", 4), ("e", 6))),
        blocks_case("many blocks", 1, ("", ("l", 1_100)), *[("", (i, 2)) for i in range(LATER)], ("", ("l", 1_100))),
        blocks_case("blocks of one token", 1, ("", ("a", 3)), ("", ("a", 3)), ("", ("a", 5), ("b", 2)), ("", ("b", 2)), ("", ("b", 1)), ("", ("a", 4), ("c", 2))),
        blocks_case("known blocks behind an unknown one", 3, ("", ("a", 6), ("b", 7)), ("", ("c", 3), ("a", 6), ("b", 7)), ("", ("a", 3), ("d", 3), ("b", 6)), ("", ("a", 6), ("b", 3), ("d", 5)), ("", ("c", 3), ("a", 6), ("d", 5))),
    ],
)  # fmt: skip


def paid_case(name: str, *each: Sequence[Any]) -> Case:
    """first, step, turns, stamp, front, size; the first is larger or smaller in a hidden case."""

    def draw_args(draw: Draw) -> Sequence[Any]:
        return [
            [
                [draw.number(f"first{i}", first, first - 5, first + 9), *others]
                for i, (first, *others) in enumerate(each)
            ]
        ]

    return Case(name, draw_args)


PAID = Exercise(
    name="agent.paid",
    solution="tokens_paid",
    reference=reference.right_paid,
    drive=drives.tokens_paid_for,
    points=4,
    uses=["agent.blocks"],
    **EVENTS,
    cases=[
        paid_case("a time in front", (50, 10, 5, 3, True, 4), (40, 7, 6, 1, True, 8), (10, 5, 3, 9, True, 4)),
        paid_case("a time at the end", (50, 10, 5, 3, False, 4), (41, 7, 6, 1, False, 8), (30, 12, 4, 20, False, 16)),
        paid_case("no time", (60, 9, 7, 0, True, 4), (33, 8, 5, 0, False, 16)),
        paid_case("neither a time nor a step", (32, 0, 3, 0, False, 16)),
        paid_case("one turn", (20, 5, 1, 2, True, 4), (21, 6, 1, 2, False, 4)),
        paid_case(
            "blocks of one token, and larger ones than a turn",
            (30, 11, 4, 2, False, 1),
            (64, 3, 9, 5, False, 32),
            (64, 3, 9, 5, True, 32),
        ),
    ],
)


LOG = "".join(f"<{c}> passed\n" for c in "abcdefghij") + "<k> <l> <m> failed\n1 failed, 10 passed"


def cut_case(name: str, most: int, kind: str, *texts: str) -> Case:
    return Case(name, lambda draw: [filled(draw, list(texts)), draw.number("most", most, most - 2, most + 2), kind])


CUT = Exercise(
    name="agent.cut",
    solution="cut",
    reference=reference.right_cuts,
    drive=drives.texts_cut,
    points=6,
    **EVENTS,
    cases=[
        cut_case("a test's log, in words", 14, "words", LOG, LOG + "\n"),
        cut_case("the same in bytes", 70, "bytes", LOG, LOG + "\n\n"),
        cut_case(
            "texts that fit, or just not",
            20,
            "pairs",
            "<a>\n<b>\n",
            "<a>\n<b>\n<c>\n<d>\n<e>\n",
            "",
            "\n",
            "<a>",
            "<a> <b>\n<c> <d>\n<e> <f>\n<g>\n",
            "<a>\n<b>\n<c>\n<d>\n<e>\n<f>\nabc\n",
            "<a>\n<b>\n<c>\n<d>\n<e>\n<f>\n",
        ),
        cut_case(
            "a long line first, or last, or alone",
            12,
            "words",
            "<a> " * 20 + "\n<b>\n<c>\n",
            "<b>\n<c>\n" + "<a> " * 20,
            "<a> " * 30,
            "<a>\n" + "<b> " * 30 + "\n<c>\n",
            "<a> " * 12 + "<b>",
        ),
        cut_case(
            "lines of many sizes",
            30,
            "bytes",
            "<a>\n<b><c>\n\n\n<d>\n<e><f><g><h>\n<i>\n<j>\n\n<k><l>\n",
            "<a>\n\n\n\n\n\n\n<b><c>\n<d>\n<e>\n<f>\n",
        ),
        cut_case("room for few tokens", 3, "words", "<a>\n<b>\n<c>\n<d>\n<e>\n<f>\n<g>\n<h>\n"),
        cut_case("lines that have fewer tokens than the text", 12, "tens", "<a> <b> <c>\n" * 9, "<a> <b> <c>\n" * 18),
        cut_case(
            "other line breaks are no line breaks",
            15,
            "pairs",
            "<a>\r\n<b>\x0c<c>\n<d>\u2028<e>\n<f>\x0b<g>\n<h>\r<i>\n<j>\n",
            "<a>\x85<b>\n<c>\n<d>\n<e>\n<f>\n<g>\n",
        ),
    ],
)


def said(role: str, text: str, *ids: str) -> dict[str, Any]:
    message: dict[str, Any] = {"role": role, "content": text}
    if role == "tool":
        return message | {"id": ids[0]}
    return message | {"calls": [{"id": i, "name": "read", "arguments": {}} for i in ids]} if ids else message


TALK = [said("user", "<t> <a> <b>"), said("assistant", "<c>", "1"), said("tool", "<d> <e> <f>", "1"), said("assistant", "<g> <h>", "2", "3"), said("tool", "<i>", "2"), said("tool", "<j> <k>", "3"),
        said("assistant", "<l> <m>"), said("user", "<n>"), said("assistant", "<o>", "4"), said("tool", "<p> <q> <r> <s>", "4"), said("assistant", "<u> <v> <w> <x>"), said("user", "<y> <z>")]  # fmt: skip


def fit_case(name: str, messages: Sequence[Any], limits: Sequence[int], kind: str) -> Case:
    return Case(
        name, lambda draw: [filled(draw, list(messages)), [*limits, draw.number("limit", limits[0] + 1, 3, 12)], kind]
    )


HISTORY = Exercise(
    name="agent.history",
    solution="fit",
    reference=reference.right_histories,
    drive=drives.histories_fitted,
    points=6,
    **EVENTS,
    cases=[
        fit_case("a conversation, with room for more and more", TALK, range(4, 30, 2), "words"),
        fit_case("the newest is a result", TALK[:10], range(5, 24), "words"),
        fit_case("two results of one message", TALK[:6], [3, 7, 8, 9, 10, 11, 12, 13, 40], "words"),
        fit_case("in bytes", TALK[:9], [20, 30, 44, 45, 60, 61, 75, 76, 90, 200], "bytes"),
        fit_case("the task alone, and with an answer", TALK[:1], [1, 2, 99], "words"),
        fit_case("a large message in the middle", [TALK[0], said("assistant", "<a>"), said("user", "<b> " * 9), said("assistant", "<c>"), said("user", "<d>")], [4, 5, 6, 13, 14, 15, 16], "words"),
        fit_case("equal messages", [TALK[0], said("user", "<b> <c>"), said("assistant", "<d>"), said("user", "<e> <f> <g>"), said("user", "<b> <c>"), said("assistant", "<d>")], [5, 6, 8, 9, 10, 11, 12, 14], "words"),
        fit_case("the first message has a call and its result", [*TALK[1:3], said("user", "<u> " * 9), said("user", "<v>")], [3, 4, 5, 13, 14, 15], "words"),
        fit_case("results behind a message that lists no calls", [TALK[0], said("assistant", "<u> <v> <w>"), TALK[2], said("user", "<x>")], [3, 4, 6, 7, 9, 10, 11], "words"),
        fit_case("a short conversation", [TALK[0], TALK[-1]], [1, 4, 5, 6], "words"),
    ],
)  # fmt: skip


def session_case(name: str, lines: Sequence[Any], torn: str, appended: Sequence[Any]) -> Case:
    return text_case(name, list(lines), torn, list(appended))


SESSION = Exercise(
    name="agent.session",
    solution="Session",
    reference=reference.right_sessions,
    drive=drives.sessions_resumed,
    points=6,
    **EVENTS,
    cases=[
        session_case("no file yet", [], "", [said("user", "<a>"), said("assistant", "<b>\n<c> \u2028 ü")]),
        session_case("a conversation goes on", TALK[:8], "", [said("assistant", "<a>"), said("user", "<b>")]),
        session_case("the last line was cut off", TALK[:3], '{"role": "assistant", "cont', [said("user", "<y>"), said("assistant", "<z>")]),
        session_case("a whole message, whose line break is missing", TALK[:2] + TALK[2:3], '{"role": "assistant", "content": "<x>"}', [said("user", "<y>")]),
        session_case("a call without a result", TALK[:2], "", [said("user", "<y>")]),
        session_case("two calls, one of them has a result", TALK[:5], "", [said("assistant", "<x>", "9"), said("tool", "<y>", "9")]),
        session_case("cut off in the middle of a letter", [*TALK[:2], said("tool", "<d> \u00fc\u00fc\u00fc", "1")], '{"role": "user", "content": "<x> \u00fc', [said("user", "<z>")]),
        session_case("an id that is used again", [*TALK[:3], said("assistant", "<a>", "1")], "", [said("assistant", "<b>", "5"), said("tool", "<c>", "5"), said("assistant", "<d>", "5")]),
        session_case("an interrupted call in the middle", [TALK[0], said("assistant", "<a>", "8"), said("assistant", "<b>", "9"), said("tool", "<c>", "9")], "", []),
        session_case("a result that was cut off", TALK[:4], '{"role": "tool", "id": "2", "content": "<x>', [said("user", "<z>")]),
        session_case("several calls without results", [*TALK[:1], said("assistant", "<a>", "<b>", "<c>", "<d>", "<f>"), said("tool", "<e>", "<c>")], "", []),
        session_case("a call in the last message that is appended", TALK[:1], "", [said("assistant", "<a>", "<b>")]),
        session_case("nothing but a line that was cut off", [], '{"role": "user", "content": "<x>', [said("user", "<y>")]),
    ],
)  # fmt: skip


# Constrained decoding


def mask_case(
    name: str,
    pattern: str,
    letters: str,
    vocabulary: Sequence[str],
    end: int,
    prefixes: Sequence[str],
    draw_end: bool = False,
    dead: str = "",
    again: bool = False,
) -> Case:
    """pattern: a regular expression over a few letters, each of which another letter stands for; prefixes: where the
    allowed tokens are asked for. The vocabulary comes in random order, its end token at `end`.

    dead: a letter that leads from the first state to one that nothing follows. again: the automaton is asked a second
    time, with the vocabulary the other way round.
    """

    def draw_args(draw: Draw) -> Sequence[Any]:
        step, final, states = reference.automaton(pattern, letters, prefixes)
        if dead:
            step[0].append([dead, len(step)])
            step.append([])
        order = torch.randperm(len(vocabulary), generator=draw.generator).tolist()
        tokens = [vocabulary[i] for i in order]
        marks = torch.randperm(90, generator=draw.generator).tolist()
        other = {letter: chr(165 + marks[i]) for i, letter in enumerate(letters)}
        tokens.insert(end, other.get(letters[0], "") if draw_end else "")

        def changed(text: str) -> str:
            return "".join(other.get(c, c) for c in text)

        moved = [[[ord(other[c]), to] for c, to in pairs] for pairs in step]
        given = [changed(text) for text in tokens]
        return [moved, final, states, given, end, *([[given[::-1], len(given) - 1 - end]] if again else [])]

    return Case(name, draw_args)


# The arguments of mask_case. test_agent.py compares what is right there with two libraries.
MASKS: list[Any] = [
    ("letters one by one", "abc|abd", "abcd", ["a", "b", "c", "d"], 4, ["", "a", "ab", "abc", "abd"]),
    ("tokens of several letters", "ab(ca|cb)*d", "abcd", ["a", "ab", "abc", "bca", "cac", "d", "ad", "cbd", "da", "b", "c", "dd", "bca"], 3, ["", "a", "ab", "abc", "abca", "abcad"]),
    ("complete, but it may go on", "a{1,3}", "ab", ["a", "aa", "aaa", "aaaa", "b", "ab"], 0, ["", "a", "aa", "aaa"]),
    ("an open string", "q[ab]*q", "qab", ["q", "a", "ba", "aq", "qa", "qq", "bq", "qaq"], 6, ["", "q", "qa", "qab", "qaq"]),
    ("tokens without bytes", "ab?", "ab", ["", "a", "b", "", "ab"], 2, ["", "a", "ab"]),
    ("an end token that has bytes", "(ab)*a", "ab", ["a", "b", "ba", "ab", "abab", "babab"], 1, ["", "a", "ab"], True),
    ("a vocabulary that can't go on", "abc", "abc", ["a", "ab", "b", "ca", ""], 5, ["", "a", "ab", "abc"]),
]  # fmt: skip

MASK = Exercise(
    name="agent.mask",
    solution="allowed_tokens",
    reference=reference.right_tokens,
    drive=drives.tokens_allowed,
    without={"OtherValues": "another end token may be a letter's"},
    points=6,
    **EVENTS,
    cases=[
        *(mask_case(*row) for row in MASKS),
        mask_case("a state that nothing follows", "ab|b", "abd", ["a", "d", "b", "ad", "bd"], 3, ["", "a"], dead="d"),
        mask_case("two vocabularies, one after the other", "ab?", "ab", ["a", "b", "ab"], 1, ["", "a"], again=True),
    ],
)


EXERCISES = with_mistakes(
    __file__,
    [SCHEMA, LOOP, PATHS, PERMISSION, RUN, LIMITS, FACTS, PROMPT, BLOCKS, PAID, CUT, HISTORY, SESSION, MASK],
)
