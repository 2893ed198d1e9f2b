"""The record of proofs, tests/proved.toml: a lesson that was proved as it is now is sampled, and not proved again.

    pytest --sample         of each lesson on record a sample of its tests, of every other lesson all of them
    pytest --prove          all tests of each lesson that is not on record as it is now, and an entry for it; all others
    pytest --prove --all    the same for every lesson
    pytest --canary         of each lesson one right program, three mistakes and one sly program

A sample is drawn by the commit's hash, so it changes from commit to commit; `--draw HASH` repeats one.
"""

import ast
import datetime
import hashlib
import json
import platform
import re
import subprocess
import tomllib
from collections import defaultdict
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parents[2]
RECORD = PROJECT / "tests" / "proved.toml"
JOURNAL = PROJECT / "test-output" / "proving.jsonl"  # what passed of a proof that was stopped
EVERY = 8  # of a kind of test the share that is sampled is one in so many, where the test has no mark `sampled`
WHOLE = 0  # in its place: the tests of two lessons, the same two for all such kinds, whose preparation takes longest
LESSONS_WHOLE = 2
CANARY = {"test_another_right_program_passes": 1, "test_a_named_mistake_is_rejected_and_named": 3,
          "test_a_sly_program_is_not_accepted": 1}  # fmt: skip
LESSONS = sorted((path.parent.name for path in PROJECT.glob("solutions/*/exercises.py")), key=len, reverse=True)
NAMED = re.compile(rf"^solutions/({'|'.join(LESSONS)})/|^tests/lessons/.*?[\[-]({'|'.join(LESSONS)})(?=[\] -])")
MISSING, OTHER_JUDGE, PROVED = "no proof", "proved with another judge", "proved as it is"


def lesson_of(nodeid: str) -> str:
    """The lesson that a test is about: it lies in its folder, or names it in its parameters; else an empty string."""
    found = NAMED.search(nodeid)
    return (found[1] or found[2]) if found else ""


def kind_of(nodeid: str) -> str:
    """A test's function, or `nbval` for a cell of a notebook."""
    return "nbval" if ".ipynb::" in nodeid else nodeid.partition("[")[0].rpartition("::")[2]


# What a proof depends on


def _digest(texts: Iterable[str]) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def _files(*below: str) -> list[Path]:
    """The files that git knows, or would add, below these folders."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *below],
        cwd=PROJECT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    return [PROJECT / name for name in sorted(set(filter(None, listed.split("\0")))) if (PROJECT / name).is_file()]


def content(files: Iterable[Path]) -> str:
    """A digest of files, with their places in the project."""
    return _digest(
        f"{path.relative_to(PROJECT)} {hashlib.sha256(path.read_bytes()).hexdigest()}" for path in sorted(files)
    )


def own_digest(lesson: str) -> str:
    """Of a lesson's folder and its release. Given cells are in its notebook, with their text."""
    return content(_files(f"solutions/{lesson}", f"course/{lesson}"))


def imported(files: Iterable[Path]) -> set[str]:
    """The dotted names that Python files import, each name of a `from` import included."""
    found: set[str] = set()
    for path in files:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


@cache
def judging_files() -> tuple[Path, ...]:
    """The tests that ask every lesson with their helpers, and of the engine whatever these or the lessons import.

    Other files of a room that is imported from, a family of mistakes say, count as well.
    """
    import grimp

    tests = [*PROJECT.glob("tests/lessons/*.py"), PROJECT / "conftest.py", Path(__file__).resolve()]
    for path in tests:  # it grows meanwhile
        helpers = {PROJECT / "tests" / "support" / f"{name}.py" for name in imported([path])}
        tests += [helper for helper in sorted(helpers) if helper.is_file() and helper not in tests]
    graph = grimp.build_graph("grader", cache_dir=None)
    asked = imported([*tests, *PROJECT.glob("solutions/*/*.py")]) & graph.modules
    modules = asked.union(*(graph.find_upstream_modules(name) for name in asked))
    rooms = {"/".join(name.split(".")[:2]) for name in modules}
    folders = {(PROJECT / room) for room in rooms if (PROJECT / room).is_dir()}
    engine = [
        path
        for path in _files("grader")
        if (path.suffix != ".py" and folders & set(path.parents))
        or ".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__") in modules
    ]
    return (*tests, *engine)


@cache
def judging_digest() -> str:
    """Of what judges every lesson."""
    return content(judging_files())


def versions() -> dict[str, str]:
    """What a proof was made with."""
    python = ".".join(platform.python_version_tuple()[:2])
    return {"python": python, **{name: version(name).partition("+")[0] for name in ("torch", "transformers", "numpy")}}


def key(lesson: str) -> dict[str, Any]:
    """What a proof of the lesson depends on, as digests."""
    return {"lesson": own_digest(lesson), "judging": judging_digest(), "versions": versions()}


def standing(lesson: str, record: Mapping[str, Any]) -> str:
    """Whether the lesson is on record as it is, or was proved with other rooms that judge or other versions."""
    entry, now = record.get(lesson, {}), key(lesson)
    if entry.get("lesson") != now["lesson"]:
        return MISSING
    return PROVED if all(entry.get(name) == now[name] for name in now) else OTHER_JUDGE


def read_record() -> dict[str, Any]:
    """The entry of each lesson that has one."""
    return tomllib.loads(RECORD.read_text("utf-8")) if RECORD.exists() else {}


def ids_digest(nodeids: Iterable[str]) -> str:
    """Of the tests of a lesson, in any order."""
    return _digest(sorted(nodeids))


def entry_text(lesson: str, entry: Mapping[str, Any]) -> str:
    """An entry as TOML."""

    def value(of: Any) -> str:
        if isinstance(of, dict):
            return "{ " + ", ".join(f"{name} = {value(item)}" for name, item in of.items()) + " }"
        return json.dumps(of)

    return "\n".join([f'["{lesson}"]', *(f"{name} = {value(of)}" for name, of in entry.items())]) + "\n"


def write_record(record: Mapping[str, Any]) -> None:
    """One table a lesson, in order."""
    head = "# Written by `make prove`: what each lesson's last full proof depended on, and what it asked.\n\n"
    RECORD.write_text(head + "\n".join(entry_text(name, record[name]) for name in sorted(record)), encoding="utf-8")


# Which tests are run


def drawn(nodeids: Iterable[str], count: int, draw: str) -> set[str]:
    """So many of the tests, the same ones for the same draw."""
    return set(sorted(nodeids, key=lambda nodeid: hashlib.sha256(f"{draw} {nodeid}".encode()).digest())[:count])


def sample(every: Mapping[str, int], standings: Mapping[str, str], draw: str) -> set[str]:
    """The tests to run. every: test -> of its kind one in so many, or WHOLE; standings: of each lesson on record.

    Where rooms that judge have changed, it is twice as many.
    """
    kinds: dict[tuple[str, str], list[str]] = defaultdict(list)
    for nodeid in every:
        kinds[standings[lesson_of(nodeid)], kind_of(nodeid)].append(nodeid)
    found: set[str] = set()
    for (stands, _), nodeids in kinds.items():
        more = 2 if stands == OTHER_JUDGE else 1
        if every[nodeids[0]] == WHOLE:
            chosen = drawn({lesson_of(nodeid) for nodeid in nodeids}, LESSONS_WHOLE * more, draw)
            found |= {nodeid for nodeid in nodeids if lesson_of(nodeid) in chosen}
        else:
            share = max(1, every[nodeids[0]] // more)
            found |= drawn(nodeids, -(-len(nodeids) // share), draw)
    return found


def canary(nodeids: Iterable[str], draw: str) -> set[str]:
    """Of each lesson one right program, three mistakes and one sly program."""
    found: set[str] = set()
    groups: dict[tuple[str, str], list[str]] = defaultdict(list)
    for nodeid in nodeids:
        groups[lesson_of(nodeid), kind_of(nodeid)].append(nodeid)
    for (_, kind), group in groups.items():
        found |= drawn(group, CANARY.get(kind, 0), draw)
    return found


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("proofs", "the record of proofs, tests/proved.toml")
    group.addoption("--sample", action="store_true", help="sample the lessons that are on record")
    group.addoption("--prove", action="store_true", help="prove the lessons that are not on record, and record them")
    group.addoption("--all", action="store_true", help="with --prove: every lesson")
    group.addoption("--canary", action="store_true", help="of lessons one right program, three mistakes, one sly one")
    group.addoption("--draw", help="draw the sample that the commit of this hash had")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line(
        "markers", "sampled(every): of lessons on record one in so many of these is run; 0: those of two lessons"
    )
    config.pluginmanager.register(Proofs(config), "proofs of lessons")


class Proofs:
    """Chooses the tests, and writes down what was proved. Under xdist its workers choose."""

    def __init__(self, config: pytest.Config) -> None:
        self.config = config
        self.sampling, self.proving = config.getoption("--sample"), config.getoption("--prove")
        self.ids: dict[str, list[str]] = {}  # of each lesson, all its tests
        self.stands: dict[str, str] = {}
        self.ran: dict[str, int] = {}
        self.failed: set[str] = set()
        self.passed: dict[str, float] = {}  # test -> seconds
        given = getattr(config, "workerinput", {})
        self.record: dict[str, Any] = {}
        if not (self.sampling or self.proving or config.getoption("--canary")):
            return
        self.draw = given.get("draw") or config.getoption("--draw") or self._commit()
        if "stands" in given:
            self.stands, self.record, self.passed = given["stands"], given["record"], given["passed"]
        elif self.sampling or self.proving:
            self.record = read_record()
            self.stands = {lesson: standing(lesson, self.record) for lesson in sorted(LESSONS)}
            self.keys = {lesson: key(lesson) for lesson in self.stands} if self.proving else {}
            self.keys[""] = {"project": content(path for path in _files(".") if path != RECORD)}  # of all other tests
            self.passed = self._journal() if self.proving else {}

    @staticmethod
    def _commit() -> str:
        done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=PROJECT, capture_output=True, text=True, check=False)
        return done.stdout.strip()[:12]

    def _journal(self) -> dict[str, float]:
        """What passed in a proof that was stopped, where nothing has changed since."""
        if not JOURNAL.exists():
            return {}
        lines = [json.loads(line) for line in JOURNAL.read_text("utf-8").splitlines() if line.endswith("}")]
        return {one["test"]: one["seconds"] for one in lines if one["key"] == self.keys.get(lesson_of(one["test"]))}

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        if self.stands or self.config.getoption("--canary"):
            node.workerinput |= {"stands": self.stands, "record": self.record, "passed": self.passed, "draw": self.draw}

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        if self.config.getoption("--canary"):
            wanted = canary((item.nodeid for item in items if lesson_of(item.nodeid)), self.draw)
            self._keep(items, [not lesson_of(item.nodeid) or item.nodeid in wanted for item in items])
        if not self.stands:
            return
        about = {item.nodeid: lesson_of(item.nodeid) for item in items}
        for nodeid, lesson in about.items():
            if lesson:
                self.ids.setdefault(lesson, []).append(nodeid)
        if only := self.config.getoption("--lesson"):
            self.stands = {lesson: stands for lesson, stands in self.stands.items() if lesson in only}
            self.ids = {lesson: nodeids for lesson, nodeids in self.ids.items() if lesson in only}
        for lesson, nodeids in self.ids.items():
            self._compare_ids(lesson, nodeids)
        if self.proving:
            asked = {lesson for lesson in self.ids if self.config.getoption("--all") or self.stands[lesson] != PROVED}
            wanted = asked if self.config.getoption("--lesson") else {*asked, ""}
            self._keep(items, [about[item.nodeid] in wanted and item.nodeid not in self.passed for item in items])
            self.ids = {lesson: self.ids[lesson] for lesson in asked}
        else:
            on_record = {lesson: stands for lesson, stands in self.stands.items() if stands != MISSING}
            every = {item.nodeid: share_of(item) for item in items if about[item.nodeid] in on_record}
            wanted = sample(every, on_record, self.draw)
            self._keep(items, [item.nodeid not in every or item.nodeid in wanted for item in items])
        for item in items:
            if lesson := about[item.nodeid]:
                self.ran[lesson] = self.ran.get(lesson, 0) + 1
        if hasattr(self.config, "workeroutput"):
            self.config.workeroutput["proofs"] = {"ids": self.ids, "stands": self.stands, "ran": self.ran}

    def _compare_ids(self, lesson: str, nodeids: list[str]) -> None:
        if self.stands[lesson] == MISSING or self.record[lesson].get("ids") == ids_digest(nodeids):
            return
        if self.stands[lesson] == PROVED:
            raise pytest.UsageError(
                f"tests/proved.toml says that {lesson} is proved with other tests than it has: no proof wrote this"
                " entry. Delete it, and run `make prove`."
            )
        self.stands[lesson] = MISSING

    def _keep(self, items: list[pytest.Item], kept: list[bool]) -> None:
        self.config.hook.pytest_deselected(items=[item for item, keep in zip(items, kept, strict=True) if not keep])
        items[:] = [item for item, keep in zip(items, kept, strict=True) if keep]

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any, error: object) -> None:
        if found := getattr(node, "workeroutput", {}).get("proofs"):
            self.ids, self.stands, self.ran = found["ids"], found["stands"], found["ran"]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if hasattr(self.config, "workerinput"):
            return
        if report.failed:
            self.failed.add(report.nodeid)
        elif self.proving and (report.when == "call" or report.skipped):
            self.passed[report.nodeid] = round(report.duration, 3)
            JOURNAL.parent.mkdir(exist_ok=True)
            with JOURNAL.open("a", encoding="utf-8") as journal:
                line = {
                    "test": report.nodeid,
                    "seconds": round(report.duration, 3),
                    "key": self.keys[lesson_of(report.nodeid)],
                }
                journal.write(json.dumps(line) + "\n")

    def pytest_sessionfinish(self) -> None:
        if not self.proving or hasattr(self.config, "workerinput"):
            return
        self.proved = [name for name, ids in self.ids.items() if set(ids) <= self.passed.keys() - self.failed]
        for lesson in self.proved:
            self.record[lesson] = self._entry(lesson)
        if self.proved:
            write_record(self.record)

    def _entry(self, lesson: str) -> dict[str, Any]:
        kinds: dict[str, int] = defaultdict(int)
        for nodeid in self.ids[lesson]:
            kinds[kind_of(nodeid)] += 1
        return {
            **self.keys[lesson],
            "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
            "seconds": round(sum(self.passed[nodeid] for nodeid in self.ids[lesson])),
            "ids": ids_digest(self.ids[lesson]),
            "tests": dict(sorted(kinds.items())),
        }

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        if hasattr(self.config, "workerinput") or not self.stands:
            return
        terminalreporter.section("proofs of lessons")
        for line in self._told() if self.sampling else self._told_of_proofs():
            terminalreporter.write_line(line)

    def _told(self) -> Iterable[str]:
        full = [lesson for lesson in self.stands if self.stands[lesson] == MISSING]
        for stands, words in ((PROVED, "on record"), (OTHER_JUDGE, "on record with another judge or other versions")):
            lessons = [lesson for lesson in self.stands if self.stands[lesson] == stands]
            if lessons:
                ran = sum(self.ran.get(lesson, 0) for lesson in lessons)
                everything = sum(len(self.ids.get(lesson, ())) for lesson in lessons)
                yield f"{len(lessons)} lessons {words}: {ran:,} of their {everything:,} tests ran, drawn by {self.draw}"
        if full:
            yield f"{len(full)} lessons without a proof, all of whose tests ran: {', '.join(full)}."
            yield "`make prove` proves them and writes it down."
        if wrong := sorted({lesson_of(nodeid) for nodeid in self.failed} - {""}):
            yield (
                f"The record is false, or something outside of it has changed, for {', '.join(wrong)}: mend it, then"
                f" `make prove`. `make test ARGS='--draw {self.draw}'` draws this sample again."
            )

    def _told_of_proofs(self) -> Iterable[str]:
        if self.proved:
            yield f"{len(self.proved)} lessons proved, and on record now: {', '.join(sorted(self.proved))}"
        if missing := sorted(set(self.ids) - set(self.proved)):
            yield f"Not proved: {', '.join(missing)}. `make prove` goes on with what has not passed."
        if not self.ids:
            yield "Every lesson is on record as it is."


def share_of(item: pytest.Item) -> int:
    """Of the item's kind one in so many is sampled, or WHOLE."""
    mark = item.get_closest_marker("sampled")
    return WHOLE if item.path.suffix == ".ipynb" else int(mark.args[0]) if mark else EVERY
