"""JupyterLab, started as the course needs it: quiet for a learner, with everything for an instructor."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from grader.package import package_folder


def open_jupyterlab(folder: Path, page: str, options: list[str], *, instructor: bool = False) -> NoReturn:
    """Become JupyterLab, in `folder` and showing `page`; options are JupyterLab's own.

    Its settings come from `jupyter/everybody` and, but for an instructor, from `jupyter/learner`. A person's own
    settings are untouched, and come before these.
    """
    command = [sys.executable, "-m", "jupyterlab", f"--LabApp.default_url={page}", *options]
    if os.name == "posix" and os.geteuid() == 0:
        command.append("--allow-root")  # JupyterLab refuses root otherwise, which in a container is the only user
    os.chdir(folder)
    settings = package_folder() / "cli" / "jupyter"
    _prepend_to_path("JUPYTER_CONFIG_PATH", settings / "everybody")
    if not instructor:
        _prepend_to_path("JUPYTER_CONFIG_PATH", settings / "learner")
        command.append(f"--LabApp.extra_labextensions_path={settings / 'labextensions'}")
        if not any(option.startswith(("--debug", "--log-level", "--Application.log_level")) for option in options):
            command += ["--ServerApp.log_level=WARN", "--LabApp.log_level=WARN"]
            print("JupyterLab opens in your browser, or at the address below. Ctrl+C here ends it.", flush=True)
    _prepend_to_path("PATH", Path(sys.executable).parent)  # nbgrader runs `alembic`, and people run `!pip`
    if sys.platform == "win32":  # there exec gives the terminal back while JupyterLab runs on
        raise SystemExit(subprocess.call(command))
    os.execv(sys.executable, command)


def _prepend_to_path(variable: str, folder: Path) -> None:
    os.environ[variable] = os.pathsep.join(filter(None, [str(folder), os.environ.get(variable)]))
