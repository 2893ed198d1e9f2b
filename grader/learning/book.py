"""The course as one PDF: the pages of the web edition in one, as a browser prints it.

Sphinx joins the lessons (its builder `singlehtml`), and a Chromium turns that page into a PDF, which knows how to set
the formulas and the pictures that the lessons have. The museum and the atlas stay on the web.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from grader.errors import GraderError
from grader.learning.museum import MUSEUM
from grader.learning.site import ATLAS

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
MINUTES = 10  # to print: far more than a course of ten lessons takes
LEFT_OUT = f"{MUSEUM}.md,{MUSEUM}/**,{ATLAS}.md,_extra,_own"
_FOLDED = re.compile(r"<details\b(?![^>]*\bopen\b)")

# A lesson begins a page; code and tables are as wide as the page and break where they must.
PRINTED = """<style>
@page { size: A4; margin: 18mm 16mm }
body { font: 10.5pt/1.45 sans-serif; max-width: none }
h1 { break-before: page }
h1, h2, h3, h4, summary { break-after: avoid }
img, svg, .grader-report tr { break-inside: avoid; max-width: 100% }
pre { white-space: pre-wrap; overflow-wrap: anywhere; font-size: 8.5pt; line-height: 1.35 }
table { border-collapse: collapse; font-size: 9pt; max-width: 100% }
.related, .headerlink, .footer, .sphinxsidebar, .toctree-wrapper > p { display: none }
div.bodywrapper, div.body { margin: 0; max-width: none }
</style>"""


def find_browser() -> str:
    """The first Chromium on the PATH. Raises GraderError where there is none."""
    for name in BROWSERS:
        found = shutil.which(name)
        if found:
            return found
    raise GraderError(
        "a PDF needs Chromium or Chrome to print it, and none is on the PATH (Debian: apt install chromium)."
    )


def write_book(sources: Path, target: Path) -> None:
    """Print the lessons among the web edition's `sources` to the PDF `target`.

    Raises GraderError where no browser is found, where Sphinx fails, and where the browser writes nothing.
    """
    browser = find_browser()
    joined = sources.with_name(f"{sources.name}-joined")
    options = ["-D", f"exclude_patterns={LEFT_OUT}", "-D", "html_theme=basic"]
    options += [
        "-D",
        "suppress_warnings=mystnb.unknown_mime_type,myst.header,myst.xref_missing,toc.excluded,toc.not_readable",
    ]
    command = [sys.executable, "-m", "sphinx", "-q", "-b", "singlehtml", *options, str(sources), str(joined)]
    if subprocess.run(command, check=False).returncode:
        raise GraderError("Sphinx could not join the lessons; what it says stands above.")
    page = joined / "index.html"
    page.write_text(unfolded(page.read_text("utf-8")), encoding="utf-8")
    printed(browser, page, target)


def unfolded(page: str) -> str:
    """The page as paper needs it: what is folded is open, since nobody can click on paper, and the rules for print."""
    return _FOLDED.sub("<details open", page).replace("</head>", f"{PRINTED}</head>", 1)


def printed(browser: str, page: Path, target: Path) -> None:
    """Have a browser print a page to a PDF. Raises GraderError where it writes none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    flags = ["--headless", "--disable-gpu", "--no-pdf-header-footer", "--generate-pdf-document-outline"]
    flags += ["--virtual-time-budget=120000"]  # milliseconds in which formulas are set before the page is printed
    if hasattr(os, "getuid") and os.getuid() == 0:
        flags.append("--no-sandbox")  # Chromium has none for root
    command = [browser, *flags, f"--print-to-pdf={target.resolve()}", page.resolve().as_uri()]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=60 * MINUTES, check=False)
    except subprocess.TimeoutExpired as error:
        raise GraderError(f"the browser did not end within {MINUTES} minutes: {' '.join(command)}") from error
    if not target.is_file():
        raise GraderError(f"the browser wrote no PDF. It says: {done.stderr.strip()[-600:] or 'nothing'}")
