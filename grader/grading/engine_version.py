"""The engine's version: what was graded by other code is graded anew.

It covers the modules that can change what a submission earns or what the student is told, and no other: a word in the
panel of cache sizes regrades no class.
"""

from functools import cache
from importlib.metadata import PackageNotFoundError

from grader.digest import digest
from grader.package import distribution, package_folder

# What grading/run.py and the jailed child import (test_rooms.py compares): it decides about every verdict.
MODULES = (
    "calls",
    "columns",
    "config",
    "devices",
    "digest",
    "errors",
    "modes",
    "names",
    "package",
    "padding",
    "report",
    "steps",
    "tolerance",
    "recordings/answers",
    "recordings/builder",
    "recordings/format",
    "recordings/recording",
    "recordings/tasks",
    "recordings/tensors",
    "recordings/toy_lm",
    "recordings/traces",
    "lessons/cells",
    "lessons/notebooks",
    "checks/axes",
    "checks/blind",
    "checks/building",
    "checks/composite",
    "checks/diagnose",
    "checks/difference",
    "checks/examine",
    "checks/gradients",
    "checks/judge",
    "checks/layout",
    "checks/measured",
    "checks/naming",
    "checks/nan",
    "checks/observation",
    "checks/parts",
    "checks/probe",
    "checks/running",
    "checks/second_run",
    "checks/torch_errors",
    "checks/values",
    "checks/verdict",
    "checks/whose",
    "checks/wording",
    "grading/children",
    "grading/frames",
    "grading/kit",
    "grading/plan",
    "grading/results",
    "grading/run",
    "grading/solutions",
    "grading/submission",
    "grading/told",
    "grading/wire",
    "grading/sandbox/child",
    "grading/sandbox/confinement",
    "grading/sandbox/jail",
    "grading/sandbox/launch",
    "grading/sandbox/limits",
    "grading/sandbox/linux",
    "grading/sandbox/needed",
    "grading/sandbox/seccomp",
    "grading/sandbox/view",
    "grading/sandbox/zygote",
)


@cache
def engine_version() -> str:
    """The package's version, and a digest of the code that decides about verdicts."""
    files = [f"{module}.py" for module in sorted(MODULES)]
    found = digest(b"".join(file.encode() + b"\0" + (package_folder() / file).read_bytes() for file in files))
    try:
        number = distribution().version
    except PackageNotFoundError:
        number = "0"
    return f"{number}+{found[:12]}"
