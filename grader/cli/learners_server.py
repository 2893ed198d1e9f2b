"""What Jupyter's server does for a learner: the page "Where am I" is never out of date, and it starts with one line."""

import contextlib
import logging
from pathlib import Path
from typing import Any

from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager

from grader.learning.home import Home
from grader.learning.status import PAGE, write_page


class LearnersContents(AsyncLargeFileManager):
    """Jupyter's own contents, in which the page is made when it is opened."""

    async def get(self, path: str, *arguments: Any, **options: Any) -> Any:
        """See `ContentsManager.get`."""
        if path.strip("/") == PAGE:
            with contextlib.suppress(Exception):  # then the page is as it was; it must never keep a folder from opening
                write_page(Home(Path(self.root_dir)))
        return await super().get(path, *arguments, **options)  # type: ignore[no-untyped-call]


def _jupyter_server_extension_points() -> list[dict[str, str]]:
    """By this Jupyter's server finds what follows."""
    return [{"module": "grader.cli.learners_server"}]


def _load_jupyter_server_extension(server: Any) -> None:
    """Say where JupyterLab is in one line, in place of the server's own seven."""

    def other(record: logging.LogRecord) -> bool:
        return "To access the server" not in record.getMessage()

    server.log.addFilter(other)
    server.io_loop.add_callback(lambda: print(f"JupyterLab: {server.display_url.split()[-1]}", flush=True))
