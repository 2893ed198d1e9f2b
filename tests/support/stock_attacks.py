"""The attack suite against stock nbgrader, as a table beside this engine's.

    python tests/support/stock_attacks.py [NAME ...]

Each attack is graded in a course of its own, after an honest student and before another, inside bubblewrap
(apt install bubblewrap) with no network and a time limit. Those that would exhaust the machine are left out:
stock nbgrader has no limits. Attacks on collecting go through an exchange, with accounts of their own, as root; the
code in them is honest.
"""

import csv
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from attack_course import ATTACKS, LESSON, ON_COLLECTING, RIGHT, Attack, attack_with, canary, make_course, submit
from attacked_exchange import HONEST, attacked
from attacked_exchange import scores as exported

ROOT = Path(__file__).resolve().parents[2]


SECONDS = 150
EXHAUSTING = (
    "break_fork_bomb", "break_threads", "break_memory", "break_memory_torch", "break_memory_shared", "break_disk",
    "break_memory_read_only", "break_memory_downwards",
    "break_inodes", "break_output", "break_huge_file", "break_kill", "break_long_message", "break_fifo",
    "folder_crowded", "leak_by_keyring",  # the one copies its links without end, the other leaves a key with the host
)  # fmt: skip
UNTIL = "# Submitted code never runs"
FIRST, LAST = "aa-honest", "zz-honest"


def main() -> None:
    """Run the attacks that are named, or all that can be, and print a Markdown table."""
    chosen = [a for a in ATTACKS if a.name in sys.argv[1:] or (not sys.argv[1:] and a.name not in EXHAUSTING)]
    print("| attack | what it tries | honest points | stock nbgrader gives | neighbours, of 5 | wrote outside |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory(prefix="grader-stock-") as folder:
        built = Path(folder) / "built"
        built.mkdir()
        make_course(built, secret=None)
        config = built / "nbgrader_config.py"
        config.write_text(config.read_text().partition(UNTIL)[0])
        (built / "canaries").mkdir()
        if chosen:
            stock(built, "generate_assignment", LESSON, "--force")
        for attack in chosen:
            print(row(built, attack, Path(folder) / attack.name), flush=True)
            shutil.rmtree(Path(folder) / attack.name)
        for attack in ON_COLLECTING:
            if attack.name in sys.argv[1:] or not sys.argv[1:]:
                print(row_of_collecting(built, attack), flush=True)


def row_of_collecting(built: Path, attack: Attack) -> str:
    """What an attack in the exchange achieves, as a row."""
    with attacked(built, [attack], stock_from=UNTIL) as (made, who):
        stopped = ""
        for name in ("collect", "autograde"):  # in programs of their own: this one has the engine's nbgrader
            command, environment = [sys.executable, "-m", "nbgrader", name, LESSON], made.lecturer.environment
            done = subprocess.run(command, cwd=made.root, env=os.environ | environment, capture_output=True)
            if done.returncode:
                stopped = f" (`{name}` fails)"
                break
        found = exported(made)
    neighbours = ", ".join(f"{found[s]:g}" if s in found else "not graded" for s in HONEST)
    shown = f"{found[who[attack.name]]:g}" if who[attack.name] in found else "-"
    return f"| {attack.name} | {attack.tries} | {attack.earns:g} | {shown}{stopped} | {neighbours} | no |"


def row(built: Path, attack: Attack, root: Path) -> str:
    """What an attack achieves, as a row."""
    shutil.copytree(built, root)
    for student in (FIRST, LAST):
        submit(root, student, RIGHT)
    if attack.earlier:
        submit(root, attack.name, RIGHT)
        stock(root, "autograde", LESSON)
        (root / "submitted" / attack.name / LESSON / "timestamp.txt").write_text("2026-02-01 00:00:00 UTC")
    attack_with(root, attack, 9)
    in_time = stock(root, "autograde", LESSON, "--force")
    stock(root, "export", "--to", "grades.csv")
    scores = read_scores(root / "grades.csv")
    shown = "-" if attack.name not in scores else f"{scores[attack.name]:g}"
    neighbours = ", ".join(f"{scores[s]:g}" if s in scores else "not graded" for s in (FIRST, LAST))
    outside = "yes" if canary(root, attack.name).exists() else "no"
    late = "" if in_time else f" (stopped after {SECONDS} s)"
    return f"| {attack.name} | {attack.tries} | {attack.earns:g} | {shown}{late} | {neighbours} | {outside} |"


def stock(root: Path, *words: str) -> bool:
    """Run nbgrader with only its course to write to; whether it ended in time."""
    python = Path(sys.executable)
    command = [
        "bwrap", "--unshare-pid", "--unshare-ipc", "--unshare-uts", "--die-with-parent", "--ro-bind", "/", "/",
        "--dev", "/dev", "--proc", "/proc", "--tmpfs", "/tmp", "--bind", str(root), str(root), "--chdir", str(root),
        "--ro-bind", str(ROOT), str(ROOT), "--setenv", "HOME", "/tmp", "--setenv", "PYTHONPATH", str(ROOT),
        "--setenv", "PATH", f"{python.parent}:/usr/bin:/bin", "--setenv", "OMP_NUM_THREADS", "1",
        "--unshare-net", str(python), "-m", "nbgrader", *words,
    ]  # fmt: skip
    try:
        subprocess.run(command, capture_output=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return False
    return True


def read_scores(path: Path) -> dict[str, float]:
    """What nbgrader exported."""
    if not path.exists():
        return {}
    with path.open() as file:
        return {line["student_id"]: float(line["score"]) for line in csv.DictReader(file)}


if __name__ == "__main__":
    main()
