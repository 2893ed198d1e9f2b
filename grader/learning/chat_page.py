"""The chat page: a learner's own model in the browser, served by Chainlit. `serve` is all that the rest knows of it."""

import os
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory

from grader.errors import GraderError
from grader.learning.talk import Talk
from grader.package import distribution

APP = Path(__file__).parent / "chat_app.py"
CONFIGURATION = """\
[project]
enable_telemetry = false

[features]
edit_message = false

[features.spontaneous_file_upload]
enabled = false

[UI]
name = NAME
cot = "hidden"

[meta]
generated_by = "VERSION"
"""
_talks: list[Talk] = []  # the one that is served: Chainlit runs the page's module by its path, with no arguments


def serve(talk: Talk, title: str, port: int = 8000, show: bool = True) -> None:
    """Serve the page on this machine until Ctrl-C. title: over the page. show: open a browser.

    Raises GraderError where Chainlit is not installed.
    """
    require_chainlit()
    _talks[:] = [talk]
    with TemporaryDirectory(prefix="grader-chat-") as folder:
        settings = Path(folder) / ".chainlit" / "config.toml"
        settings.parent.mkdir()
        settings.write_text(
            CONFIGURATION.replace("NAME", repr(title)).replace("VERSION", version("chainlit")), encoding="utf-8"
        )
        (Path(folder) / "chainlit.md").write_text("", encoding="utf-8")
        # Read when Chainlit is imported: its folder, and that only this machine is served.
        os.environ |= {"CHAINLIT_APP_ROOT": folder, "CHAINLIT_HOST": "127.0.0.1", "CHAINLIT_PORT": str(port)}
        os.environ |= {"OTEL_SDK_DISABLED": "true", "TRACELOOP_TELEMETRY": "false"}
        from chainlit.cli import run_chainlit
        from chainlit.config import config

        config.run.headless, config.run.host, config.run.port = not show, "127.0.0.1", port
        run_chainlit(str(APP))


def require_chainlit() -> None:
    """Raise GraderError where Chainlit is not installed."""
    if find_spec("chainlit") is None:
        needed = next((each for each in distribution().requires or () if each.startswith("chainlit")), "chainlit")
        raise GraderError(
            "the chat page needs Chainlit, which brings about a hundred packages, 130 MB. Install it:"
            f" pip install '{needed.partition(';')[0].strip()}'"
        )


def served() -> Talk:
    """The talk that is served."""
    return _talks[0]
