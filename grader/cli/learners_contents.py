"""What JupyterLab shows of a learner's folder: its files, of which the page "Where am I" is made when it is opened."""

import contextlib
from pathlib import Path
from typing import Any

from jupyter_server.services.contents.largefilemanager import AsyncLargeFileManager

from grader.learning.home import Home
from grader.learning.status import PAGE, write_page


class LearnersContents(AsyncLargeFileManager):
    """Jupyter's own contents, with a page that is never out of date."""

    async def get(self, path: str, *arguments: Any, **options: Any) -> Any:
        """See `ContentsManager.get`."""
        if path.strip("/") == PAGE:
            with contextlib.suppress(Exception):  # then the page is as it was; it must never keep a folder from opening
                write_page(Home(Path(self.root_dir)))
        return await super().get(path, *arguments, **options)  # type: ignore[no-untyped-call]
