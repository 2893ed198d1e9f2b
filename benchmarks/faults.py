"""What share of planted faults a command finds: faults.toml, one edit each, in a clone with an environment of its own.

    python benchmarks/faults.py                  tries `make quick` on each fault that it has not tried yet
    python benchmarks/faults.py "make test"      or "make prove"
    python benchmarks/faults.py --table          what is known so far, and tries nothing

The clone is build/faults; what is found is kept in test-output/faults.json, so that a run goes on where it was stopped.
A command finds a fault if it fails. It must pass on the clone as it is, which is tried first. `make test` and `make
prove` are tried in parts, the likeliest first, up to the first that fails: what a part finds, the whole finds.
"""

import argparse
import json
import os
import subprocess
import time
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
CLONE = ROOT / "build" / "faults"
KNOWN = ROOT / "test-output" / "faults.json"
NO_FAULT = "no fault"
TESTS = "python -m pytest -x -q --numprocesses 2 --dist loadscope -m 'not browser'"
ROOMS = f"{TESTS} $(python scripts/changed.py {{file}} | grep -v ^--)"  # the tests of the rooms that the file is in
PARTS = {
    "make test": [ROOMS, f"{TESTS} --sample tests/lessons", "make test ARGS=-x"],
    "make prove": [ROOMS, f"{TESTS} tests/lessons --lesson 01-gpt2", f"{TESTS} tests/lessons", "make prove ARGS=-x"],
}


def main() -> None:
    """Try a command on each fault, and print a table by room; exits with 1 where it fails without any fault."""
    parser = argparse.ArgumentParser()
    parser.add_argument("command", nargs="?", default="make quick")
    parser.add_argument("--table", action="store_true")
    asked = parser.parse_args()
    faults = read()
    known: dict[str, dict[str, Any]] = json.loads(KNOWN.read_text("utf-8")) if KNOWN.exists() else {}
    tried = known.setdefault(asked.command, {})
    if not asked.table:
        clone()
        for name in [NO_FAULT, *faults]:
            if name not in tried:
                tried[name] = attempt(asked.command, faults.get(name))
                print(
                    f"{'found' if tried[name]['found'] else 'passes':7} {tried[name]['seconds']:5d} s  {name}",
                    flush=True,
                )
                KNOWN.parent.mkdir(exist_ok=True)
                KNOWN.write_text(json.dumps(known, indent=1), encoding="utf-8")
            if name == NO_FAULT and tried[name]["found"]:
                raise SystemExit(f"`{asked.command}` fails without any fault: see {CLONE}")
    table(faults, tried)


def read() -> dict[str, dict[str, Any]]:
    """The faults by name, each with its room. Raises SystemExit where an edit does not apply any more."""
    listed = tomllib.loads(Path(__file__).with_suffix(".toml").read_text("utf-8"))
    faults = {fault["name"]: fault | {"room": room} for room, some in listed.items() for fault in some}
    wrong = [name for name, fault in faults.items() if not applies(ROOT, fault)]
    if wrong:
        raise SystemExit("These edits don't apply: their `at` must occur once.\n" + "\n".join(wrong))
    return faults


def applies(folder: Path, fault: dict[str, Any]) -> bool:
    """Whether a fault can be planted: its file is there, and its place occurs once (`first`: at least once)."""
    path = folder / fault["file"]
    if not path.is_file():
        return False
    if fault.get("remove"):
        return True
    text = path.read_text("utf-8")
    return fault["first"] in text if "first" in fault else text.count(fault["at"]) == 1


def clone() -> None:
    """The last commit, as it is."""
    if not CLONE.exists():
        subprocess.run(["git", "clone", "--quiet", ROOT, CLONE], check=True)
    restore()
    subprocess.run(["git", "pull", "--quiet", "--ff-only"], cwd=CLONE, check=True)


def restore() -> None:
    """Take back what was planted."""
    subprocess.run(["git", "checkout", "--quiet", "--", "."], cwd=CLONE, check=True)


def attempt(command: str, fault: dict[str, Any] | None) -> dict[str, Any]:
    """Plant a fault, run the command or its parts, and take the fault back."""
    restore()
    if fault:
        plant(fault)
    began = time.monotonic()
    environment = {**os.environ, "PATH": f"{CLONE}/.venv/bin:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}
    for part in PARTS.get(command, [command]) if fault else [command]:
        line = part.replace("{file}", fault["file"] if fault else "")
        done = subprocess.run(
            ["/bin/sh", "-c", line], cwd=CLONE, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            break
    restore()
    seconds = round(time.monotonic() - began)
    return {"found": done.returncode != 0, "by": line, "seconds": seconds, "said": done.stdout[-600:]}


def plant(fault: dict[str, Any]) -> None:
    """Make the one edit."""
    path = CLONE / fault["file"]
    if fault.get("remove"):
        path.unlink()
        return
    text = path.read_text("utf-8")
    path.write_text(text.replace(fault.get("first") or fault["at"], fault["put"], 1), encoding="utf-8")


def table(faults: dict[str, dict[str, Any]], tried: dict[str, dict[str, Any]]) -> None:
    """How many faults of each room were found, of those that were tried, and what was not."""
    rooms = list(dict.fromkeys(fault["room"] for fault in faults.values()))
    for room in [*rooms, ""]:
        some = [tried[name]["found"] for name, fault in faults.items() if name in tried and room in ("", fault["room"])]
        if some:
            print(f"{room or 'all':12} {sum(some):3d} of {len(some):3d}   {sum(some) / len(some):4.0%}")
    passed = [name for name in faults if name in tried and not tried[name]["found"]]
    print("\n".join(["not found:", *passed]) if passed else "all that were tried are found")


if __name__ == "__main__":
    main()
