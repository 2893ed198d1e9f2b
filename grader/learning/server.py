"""What Jupyter's server does for a learner.

The page "Where am I" is never out of date, kernels say which cell a missing name comes from, and the server starts with
one line.
"""

import contextlib
import logging
from pathlib import Path
from typing import Any

import tornado.log
from jupyter_client.kernelspec import NATIVE_KERNEL_NAME
from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager
from jupyter_server.services.kernels.kernelmanager import AsyncMappingKernelManager

from grader.learning.home import Home
from grader.learning.status import PAGE, write_page

UNSAID = ("To access the server", "is not trusted", "websocket_ping_timeout")
UNDEFINED = "--InteractiveShellApp.extra_extensions=grader.learning.undefined"


class LearnersContents(AsyncLargeFileManager):
    """Jupyter's own contents, in which the page is made when it is opened."""

    async def get(self, path: str, *arguments: Any, **options: Any) -> Any:
        """See `ContentsManager.get`."""
        if path.strip("/") == PAGE:
            with contextlib.suppress(Exception):  # then the page is as it was; it must never keep a folder from opening
                write_page(Home(Path(self.root_dir)))
        return await super().get(path, *arguments, **options)  # type: ignore[no-untyped-call]


class LearnersKernels(AsyncMappingKernelManager):
    """Jupyter's own kernels; this environment's Python loads `grader.learning.undefined`."""

    async def start_kernel(self, **options: Any) -> str:  # type: ignore[override]
        """See `MappingKernelManager.start_kernel`."""
        name = options.get("kernel_name") or self.default_kernel_name
        if name == NATIVE_KERNEL_NAME:  # others may have no grader, or no IPython
            options.setdefault("extra_arguments", []).append(UNDEFINED)
        return str(await super().start_kernel(**options))


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    """By this Jupyter's server finds what follows."""
    return [{"module": "grader.learning.server"}]


def _load_jupyter_server_extension(server: Any) -> None:
    """Say where JupyterLab is in one line, in place of the server's own seven, and nothing that a learner can't use.

    A lesson that was never saved by Jupyter is "not trusted", which it is once it was; and Tornado corrects a time-out
    of the server's own.
    """

    def other(record: logging.LogRecord) -> bool:
        return not any(each in record.getMessage() for each in UNSAID)

    for log in (server.log, tornado.log.gen_log):
        log.addFilter(other)
    server.io_loop.add_callback(lambda: print(f"JupyterLab: {server.display_url.split()[-1]}", flush=True))
