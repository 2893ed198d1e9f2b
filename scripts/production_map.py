"""Look up every row of grader/learning/in_production.toml in the stored source, and write the learners' page.

python scripts/production_map.py MIRROR ...       compare each row with the repositories in these folders
python scripts/production_map.py MIRROR ... --lines    the same, and write the line where each name stands now
python scripts/production_map.py --page           write course/in-production.md (--check: exit with 1 if not current)

A MIRROR has ``OWNER+NAME/repo`` (or ``OWNER+NAME``), a git directory that has the commit, or ``OWNER+NAME@REVISION``,
an unpacked source tree, as a package's own source distribution holds it. Nothing is downloaded. Exits with 1 where a
row's file, or the name in it, or its line, is not what the row says, and where a repository is in no MIRROR.
"""

import argparse
import ast
import re
import subprocess
import sys
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from grader.learning.in_production import DATA, Place, Repository, modules, page, repositories

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "course" / "in-production.md"


def source(repository: Repository, file: str, mirrors: Sequence[Path]) -> str | None:
    """The text of a file at the repository's revision; None where no mirror has the repository, or it has no file."""
    stem = repository.github.replace("/", "+")
    for mirror in mirrors:
        tree = mirror / f"{stem}@{repository.at}"
        if (tree / file).is_file():
            return (tree / file).read_text(encoding="utf-8", errors="replace")
        for folder in (mirror / stem / "repo", mirror / stem):
            if folder.is_dir():
                command = ["git", "-C", str(folder), "show", f"{repository.at}:{file}"]
                done = subprocess.run(command, capture_output=True, check=False)
                if done.returncode == 0:
                    return done.stdout.decode("utf-8", "replace")
    return None


@cache
def lines_of(text: str, file: str) -> dict[str, int]:
    """Where a file defines classes and functions: ``Name``, ``Class.method``, ``Class::method`` -> the first line."""
    found: dict[str, int] = {}
    if file.endswith(".py"):
        _python(ast.parse(text), "", found)
        return found
    if file.endswith(".rs"):
        _rust(text, found)
        return found
    for number, line in enumerate(text.splitlines(), start=1):
        if line[:1].isspace() or line.startswith(("//", "#")):
            continue
        for name in re.findall(r"^(?:struct|class)\s+(\w+)|((?:\w+::)*~?\w+)\s*\(", line):
            found.setdefault(name[0] or name[1], number)
    return found


def _python(node: ast.AST, prefix: str, found: dict[str, int]) -> None:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            found.setdefault(prefix + child.name, child.lineno)
            if isinstance(child, ast.ClassDef):
                _python(child, f"{prefix}{child.name}.", found)
        elif isinstance(child, ast.If | ast.Try):
            _python(child, prefix, found)


def _rust(text: str, found: dict[str, int]) -> None:
    of = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if block := re.match(r"(?:unsafe )?impl(?:<.*?>)? (?:.* for )?(\w+)", line):
            of = block[1] + "::"
        elif line.startswith("}"):
            of = ""
        words = r"(?:pub(?:\([^)]*\))? )?(?:const |async |unsafe )*(?:fn|struct|enum|trait) (\w+)"
        if name := re.match((r" {4}" if of else "") + words, line):
            found.setdefault(of + name[1], number)


def wrong(place: Place, repository: Repository, mirrors: Sequence[Path]) -> tuple[str, int | None]:
    """What is wrong with a row, "" where nothing is; and the line where its name stands."""
    text = source(repository, place.file, mirrors)
    if text is None:
        return f"no {place.file} at {repository.at}", None
    line = lines_of(text, place.file).get(place.name)
    if line is None:
        return f"{place.file} defines no {place.name}", None
    return ("" if line == place.line else f"{place.name} is in line {line}, not {place.line}"), line


def verify(mirrors: Sequence[Path], write_lines: bool) -> int:
    """Compare every row with its source, and say what is wrong; how many rows are."""
    known, bad, rows = repositories(), 0, 0
    text = DATA.read_text(encoding="utf-8")
    for module in modules():
        for place in module.places:
            rows += 1
            said, line = wrong(place, known[place.repository], mirrors)
            if said and line is not None and write_lines:
                old = f'file = "{place.file}", name = "{place.name}", line = {place.line}'
                text = text.replace(old, old.rpartition(" ")[0] + f" {line}")
            elif said:
                bad += 1
                print(f"{module.name}, {place.repository}: {said}")
    for key, repository in known.items():
        for step in repository.read:
            rows += 1
            if source(repository, step.file, mirrors) is None:
                bad += 1
                print(f"{key}: read: no {step.file} at {repository.at}")
    if write_lines:
        DATA.write_text(text, encoding="utf-8")
    print(f"{rows - bad} of {rows} rows are as the stored source has them")
    return bad


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mirrors", nargs="*", type=Path, metavar="MIRROR", help="a folder of stored repositories")
    parser.add_argument("--lines", action="store_true", help="write the lines into the data")
    parser.add_argument("--page", action="store_true", help="write the page for learners")
    parser.add_argument("--check", action="store_true", help="write nothing; exit with 1 if the page is not current")
    options = parser.parse_args()
    if options.page or options.check:
        text = page(PAGE.parent)
        stale = not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != text
        if options.page:
            PAGE.write_text(text, encoding="utf-8")
        elif stale:
            sys.exit(f"{PAGE} is not current: python scripts/production_map.py --page")
        return
    if not options.mirrors:
        parser.error("name a folder of stored repositories, or --page")
    sys.exit(1 if verify(options.mirrors, options.lines) else 0)


if __name__ == "__main__":
    main()
