"""A real JupyterLab, started by `grader lab`, and a page in a real browser that shows it."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub.constants import HF_HOME
from playwright.sync_api import Browser, Page, sync_playwright

from grader.report import VERDICT_MIME

CHROMIUM_FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
TOKEN = "for-tests-only"
START_SECONDS = 300  # for what would never come; a busy machine may take a minute
TIMEOUT_MS = 300_000


def copy_project(source: Path, target: Path) -> Path:
    """What JupyterLab is started on, so that the tests change nothing: the lessons and nbgrader's configuration."""
    ignored = shutil.ignore_patterns(".ipynb_checkpoints", "__pycache__")
    for name in ("course", "solutions"):
        shutil.copytree(source / name, target / name, ignore=ignored)
    shutil.copy(source / "nbgrader_config.py", target)
    return target


@contextmanager
def running_jupyterlab(project: Path, *options: str) -> Iterator[str]:
    """Start ``grader lab`` in `project`; yields the server's address. Jupyter's own settings are the stock ones."""
    home = Path(tempfile.mkdtemp(prefix=".home-", dir=project))
    environment = dict.fromkeys(("HOME", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "IPYTHONDIR"), str(home))
    environment["JUPYTER_RUNTIME_DIR"] = str(home / "runtime")
    environment["HF_HOME"] = HF_HOME  # not its own, where packaged weights would be converted again, for a minute
    with running_server(["grader.cli", "lab", *options], project, environment) as address:
        yield address


@contextmanager
def running_server(command: list[str], folder: Path, environment: dict[str, str], user: Any = None) -> Iterator[str]:
    """Start a JupyterLab in `folder`, by a module's command line; yields its address.

    environment: at least a HOME, where the log goes. user: whose rights it has, as `pwd` tells them; by default ours.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    others = {name: value for name, value in os.environ.items() if not name.startswith("JUPYTER")}
    log = Path(environment["HOME"]) / "jupyterlab.log"
    command = [sys.executable, "-m", *command, "--no-browser", "--expose-app-in-browser"]
    command += [f"--ServerApp.port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}"]
    rights: dict[str, Any] = {} if user is None else {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    with log.open("wb") as out:
        server = subprocess.Popen(command, cwd=folder, env=others | environment, stdout=out, stderr=out, **rights)
    address = f"http://127.0.0.1:{port}"
    try:
        _wait_until_it_answers(server, address, log)
        yield address
    finally:
        server.terminate()
        try:
            server.wait(timeout=20)
        except subprocess.TimeoutExpired:
            server.kill()
            server.wait()


def _wait_until_it_answers(server: subprocess.Popen[bytes], address: str, log: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert server.poll() is None, f"JupyterLab ended at once:\n{log.read_text()}"
        try:
            with urllib.request.urlopen(f"{address}/api?token={TOKEN}", timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.2)
    raise AssertionError(f"JupyterLab did not answer in {START_SECONDS} s:\n{log.read_text()}")


@contextmanager
def running_browser(executable: str) -> Iterator[Browser]:
    """A fresh browser, without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable, args=CHROMIUM_FLAGS)
        try:
            yield browser
        finally:
            browser.close()


@dataclass(frozen=True)
class Lab:
    """JupyterLab as shown in `page`, driven through the application's own objects and commands."""

    page: Page
    address: str

    @classmethod
    def shown_in(cls, browser: Browser, address: str) -> "Lab":
        """The JupyterLab at `address`, in a page of its own."""
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(TIMEOUT_MS)
        return cls(page, address)

    def open(self, path: str = "") -> None:
        """Go to `path`, or to the page that a person is shown first, and wait until JupyterLab is up."""
        self.page.goto(f"{self.address}{path}?token={TOKEN}")
        self.page.wait_for_function("window.jupyterapp !== undefined")
        self.page.evaluate("() => window.jupyterapp.restored.then(() => null)")

    def run_command(self, name: str, **arguments: Any) -> None:
        """Run one of the application's commands and wait until it is done."""
        self.page.evaluate(
            "([name, args]) => window.jupyterapp.commands.execute(name, args).then(() => null)", [name, arguments]
        )

    def open_notebook(self, path: str) -> "OpenNotebook":
        """Open a notebook, relative to the server's folder, and wait for its kernel."""
        self.open(f"/lab/tree/{path}")
        return self.notebook_at(path)

    def notebook_at(self, path: str) -> "OpenNotebook":
        """A notebook that somebody opens, in front, once its kernel is ready."""
        self.page.wait_for_function(_PANEL + "!= null", arg=path)
        self.page.evaluate(
            f"""async path => {{
                const panel = {_PANEL_OF};
                await panel.revealed;
                await panel.sessionContext.ready;
                window.jupyterapp.shell.activateById(panel.id);
            }}""",
            path,
        )
        self.page.wait_for_function(f"path => {_PANEL_OF}.sessionContext.session?.kernel?.status == 'idle'", arg=path)
        return OpenNotebook(self, path)


# Finds the panel that shows a notebook, by its path.
_PANEL_OF = """[...window.jupyterapp.shell.widgets('main')]
    .find(widget => widget.context?.path === path && widget.sessionContext && widget.content?.model?.cells)"""
_PANEL = f"path => {_PANEL_OF}"


@dataclass(frozen=True)
class OpenNotebook:
    """A notebook that is open in JupyterLab."""

    lab: Lab
    path: str

    def _evaluate(self, body: str, argument: Any = None) -> Any:
        """Run JavaScript with `panel`, `cells` and `argument` at hand."""
        return self.lab.page.evaluate(
            f"""async ([path, argument]) => {{
                const panel = {_PANEL_OF};
                const cells = [...panel.content.model.cells];
                {body}
            }}""",
            [self.path, argument],
        )

    def cell(self, role: str, exercise: str) -> int:
        """The index of the cell whose metadata says that it plays `role` ("exercise", "check") for `exercise`."""
        return self.cells(role)[exercise]

    def cells(self, role: str) -> dict[str, int]:
        """Exercise -> index, for the cells that play `role`."""
        found = self._evaluate("return cells.map((c, i) => [c.getMetadata(argument), i]).filter(pair => pair[0])", role)
        return {name: int(index) for name, index in found}

    def cell_that_ends_with(self, text: str) -> int:
        """The index of the first cell whose source ends with `text`."""
        return int(self._evaluate("return cells.findIndex(c => c.sharedModel.source.trim().endsWith(argument))", text))

    def write(self, index: int, source: str) -> None:
        """Replace a cell's source, as typing would."""
        self._evaluate("cells[argument[0]].sharedModel.setSource(argument[1])", [index, source])

    def run(self, index: int) -> None:
        """Run one cell and wait until it has run."""
        self._evaluate("panel.content.deselectAll(); panel.content.activeCellIndex = argument;", index)
        self.lab.run_command("notebook:run-cell")

    def picture(self, index: int) -> bytes:
        """A cell with what it shows, as a PNG."""
        self._evaluate("panel.content.activeCellIndex = argument; await panel.content.scrollToItem(argument)", index)
        return self.lab.page.locator(".jp-Notebook:visible .jp-Cell.jp-mod-active").screenshot()

    def run_from_the_top(self, last: int | None = None) -> None:
        """Run the code cells in order, all or up to and with `last`; goes on where a cell raises."""
        kinds = self._evaluate("return cells.map(c => c.type)")
        for index, kind in enumerate(kinds):
            if kind == "code" and (last is None or index <= last):
                self.run(index)

    def run_given(self, last: int) -> None:
        """Run the locked cells before `last`, in order, which define what an exercise needs; no check."""
        given = "cells.map(c => c.type == 'code' && c.getMetadata('editable') === false && !c.getMetadata('check'))"
        for index, is_given in enumerate(self._evaluate(f"return {given}")[:last]):
            if is_given:
                self.run(index)

    def run_all(self) -> None:
        """The menu's Run All Cells, which stops at a cell that raises."""
        self.lab.run_command("notebook:run-all-cells")

    def answer(self, exercise: str, source: str) -> str:
        """Write a solution, run it and its check, and return what the check shows."""
        solution, check = self.cell("exercise", exercise), self.cell("check", exercise)
        self.write(solution, source)
        self.run(solution)
        self.run(check)
        return self.shown(check)

    def verdict(self, index: int) -> bool | None:
        """Whether the check in that cell passed, or None where it showed no verdict."""
        found = [o["data"][VERDICT_MIME] for o in self.outputs(index) if VERDICT_MIME in o.get("data", {})]
        return all(v["passed"] for v in found) if found else None

    def outputs(self, index: int) -> list[dict[str, Any]]:
        """A cell's outputs, as they would be saved."""
        return list(self._evaluate("return cells[argument].outputs.toJSON()", index))

    def shown(self, index: int) -> str:
        """The text of a cell's output area as the page shows it."""
        panel = self._evaluate("await panel.content.scrollToItem(argument, 'start'); return panel.id", index)
        cell = f"[id='{panel}'] .jp-Cell[data-windowed-list-index='{index}']"  # other notebooks may be open beside it
        return self.lab.page.locator(f"{cell} .jp-OutputArea").first.inner_text()
