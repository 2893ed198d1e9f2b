"""Which tests a change asks for: those of the rooms that it touches. `make quick` runs them.

    python scripts/changed.py [FILE ...]        without files: what differs from BASE, the working tree included

It prints files and folders of tests, one a line, and `--lesson NAME` for a lesson that was touched. BASE is a commit;
without it, where this branch left main, or, on main itself, the commit before.
"""

import os
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
ALWAYS = "tests/project"  # rooms, pages, what is generated
# Whose tests do not stand in a folder of the same name; those in tests/lessons ask every lesson, which takes long.
ELSEWHERE = {
    "grader/lessons": ["tests/lessons/test_cell_ids.py", "tests/lessons/test_release.py"],
    "training": ["tests/project"],
    "benchmarks": ["tests/instruments"],
    "nbgrader_config.py": ["tests/grading/test_nbgrader.py"],
    "conftest.py": ["tests/cli", "tests/kv"],
    "pyproject.toml": ["tests/cli", "tests/learning"],
    "packages": ["tests/learning"],
}


def git(*arguments: str) -> list[str]:
    """The lines that git prints; none where it fails."""
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.split("\n")[:-1] if done.returncode == 0 else []


def base() -> str:
    """The commit that a change is measured from."""
    if given := os.environ.get("BASE"):
        return given
    here = git("rev-parse", "HEAD")
    for main in ("origin/main", "main"):
        found = git("merge-base", "HEAD", main)
        if found and found != here:
            return found[0]
    return "HEAD" if git("status", "--porcelain") else "HEAD~1"


def changed_files() -> list[str]:
    """The files that differ from the base, those that git does not know yet included."""
    return sorted({*git("diff", "--name-only", base()), *git("ls-files", "--others", "--exclude-standard")})


def lessons_of(files: Iterable[str]) -> list[str]:
    """The lessons whose own folder is touched."""
    found = {match[2] for file in files if (match := re.match(r"(solutions|course)/([^/]+)/", file))}
    return sorted(name for name in found if (ROOT / "solutions" / name / "exercises.py").is_file())


def tests_of(files: Iterable[str]) -> list[str]:
    """Files and folders of tests, as pytest takes them: first what was changed, then what else imports it."""
    asked, imported = {ALWAYS}, set()
    for file in files:
        parts = file.split("/")
        if parts[0] == "grader" and file.endswith(".py"):
            imported.add(re.sub(r"(/__init__)?\.py$", "", file).replace("/", "."))
        if parts[0] == "grader" and len(parts) > 2:
            asked.update(ELSEWHERE.get(f"grader/{parts[1]}", [f"tests/{parts[1]}"]))
        elif parts[:2] == ["tests", "support"]:
            imported.add(Path(file).stem)
        elif parts[0] == "tests":
            asked.add(file if Path(file).name.startswith("test_") and file.endswith(".py") else "/".join(parts[:2]))
        else:
            asked.update(ELSEWHERE.get(parts[0], []))
    own = [path for path in sorted(asked) if (ROOT / path).exists()]
    others = sorted(tests_that_import(imported))
    found = [*own, *others]
    inside = [path for path in found if any(path.startswith(f"{other}/") for other in own)]
    return [path for path in dict.fromkeys(found) if path not in inside]


def tests_that_import(modules: set[str]) -> set[str]:
    """The files of tests that import one of the modules, by its dotted name; without those that ask every lesson."""
    if not modules:
        return set()
    names = "|".join(map(re.escape, sorted(modules)))
    line = re.compile(rf"^\s*(from|import) ({names})(\s|$)", re.MULTILINE)
    files = [path for path in (ROOT / "tests").rglob("test_*.py") if line.search(path.read_text("utf-8"))]
    return {path.relative_to(ROOT).as_posix() for path in files if path.parent.name != "lessons"}


def main() -> None:
    """Print what is asked of pytest."""
    files = sys.argv[1:] or changed_files()
    print(*tests_of(files), *(f"--lesson {lesson}" for lesson in lessons_of(files)), sep="\n")


if __name__ == "__main__":
    main()
