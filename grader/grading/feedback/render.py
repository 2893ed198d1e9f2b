"""A feedback page as one HTML file that needs no network: formulas as MathML, code in colours, no script.

Two things keep what somebody wrote from being obeyed: it is escaped, or cut down to formulas and Markdown; and the
page's own policy lets a browser load and run nothing, whatever came through.
"""

import re
from functools import cache
from html import escape
from pathlib import Path
from typing import Any

import bleach
import jinja2
from markupsafe import Markup
from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer

from grader.grading.feedback.content import Content
from grader.report import inline_html

_YEAR = 365 * 24 * 60  # minutes
LONG = 30  # lines: longer code is folded
MAX_PAGE = 2_000_000  # characters, whatever is handed in: what a student wrote is cut before (autograded.MAX_SHOWN)
_IMAGE = re.compile(r"<img\b[^>]*>", re.IGNORECASE)
_ALT = re.compile(r"\balt=\"([^\"]*)\"", re.IGNORECASE)
# What a formula is made of (https://www.w3.org/TR/mathml-core), without links, styles, names and annotations.
_MATH_TAGS = {
    "math", "menclose", "merror", "mfenced", "mfrac", "mi", "mmultiscripts", "mn", "mo", "mover", "mpadded",
    "mphantom", "mprescripts", "mroot", "mrow", "ms", "mspace", "msqrt", "mstyle", "msub", "msubsup", "msup",
    "mtable", "mtd", "mtext", "mtr", "munder", "munderover", "none",
}  # fmt: skip
_MATH_ATTRIBUTES = [
    "accent", "accentunder", "close", "columnalign", "columnlines", "columnspacing", "depth", "display",
    "displaystyle", "fence", "form", "frame", "height", "largeop", "linebreak", "linethickness", "lspace",
    "mathbackground", "mathcolor", "mathsize", "mathvariant", "maxsize", "minsize", "movablelimits", "notation",
    "open", "rowlines", "rowspacing", "rspace", "scriptlevel", "separator", "separators", "stretchy",
    "symmetric", "voffset", "width", "xmlns",
]  # fmt: skip
_STYLE = re.compile(r"^<style>.*?</style>", re.DOTALL)


def render(content: Content, made_from: str) -> str:
    """The page. made_from: a digest of what it shows, which it carries so that a stale one can be told."""
    styles = [found[0] for section in content.sections if (found := _STYLE.match(section.report))]
    page = _template().render(
        content=content,
        made_from=made_from,
        report_style=Markup(styles[0] if styles else ""),
        code_style=Markup(HtmlFormatter().get_style_defs(".code")),
    )
    return page + "\n"


def points(value: float) -> str:
    """Points as people read them: at most two decimals."""
    return f"{round(value, 2):g}"


def duration(seconds: float) -> str:
    """A time that somebody was late by: "2 days and 3 hours"."""
    minutes = max(1, round(seconds / 60))
    if minutes >= _YEAR:
        return f"more than {_counted(minutes // _YEAR, 'year')}"
    for unit, size, smaller, smaller_size in (("day", 1440, "hour", 60), ("hour", 60, "minute", 1)):
        if minutes >= size:
            rest = minutes % size // smaller_size
            more = f" and {_counted(rest, smaller)}" if rest else ""
            return _counted(minutes // size, unit) + more
    return _counted(minutes, "minute")


def _counted(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"


@cache
def _template() -> jinja2.Template:
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    environment.filters |= {
        "points": points,
        "duration": duration,
        "code": _code,
        "lesson_text": _lesson_text,
        "written": _written,
        "report": lambda report: Markup(_STYLE.sub("", report)),
        "lines": lambda source: len(source.splitlines()),
        "counted": _counted,
        "marked": lambda text: Markup(inline_html(text, "text")),
    }
    environment.globals["LONG"] = LONG
    return environment.from_string((Path(__file__).parent / "page.html.j2").read_text(encoding="utf-8"))


def _code(source: str) -> Markup:
    return Markup(highlight(source, PythonLexer(stripnl=False), HtmlFormatter(cssclass="code")))


def _lesson_text(source: str) -> Markup:
    """Text of the lesson's author, who may use HTML."""
    return Markup(MarkdownWithMath(renderer=_Renderer(escape=False)).render(source))


def _written(source: str) -> Markup:
    """Text of a student's or a grader's: HTML in it is shown, not obeyed."""
    renderer = _Renderer(escape=True, allow_harmful_protocols=False)
    return Markup(MarkdownWithMath(renderer=renderer).render(source))


class _Renderer(IPythonRenderer):
    """nbconvert's Markdown, with formulas as MathML; of a picture its description, for its file is in the notebook."""

    def __init__(self, **options: Any) -> None:
        super().__init__(exclude_anchor_links=True, **options)

    def image(self, text: str, url: str, title: str | None = None) -> str:
        """See `IPythonRenderer.image`."""
        return _described(text)

    def block_html(self, html: str) -> str:
        """See `IPythonRenderer.block_html`."""
        return str(super().block_html(_without_images(html)))

    def inline_html(self, html: str) -> str:
        """See `IPythonRenderer.inline_html`."""
        return str(super().inline_html(_without_images(html)))

    def inline_math(self, body: str) -> str:
        """See `IPythonRenderer.inline_math`."""
        return _mathml(body, "inline")

    def block_math(self, body: str) -> str:
        """See `IPythonRenderer.block_math`."""
        return f"<p>{_mathml(body, 'block')}</p>"


def _without_images(html: str) -> str:
    return _IMAGE.sub(lambda found: _described(alt[1] if (alt := _ALT.search(found[0])) else ""), html)


def _described(text: str) -> str:
    return f'<em class="figure">[Figure: {escape(text, quote=False)}]</em>' if text else ""


def _mathml(body: str, display: str) -> str:
    """A formula as MathML, which browsers show by themselves; as its source where it can't be converted.

    latex2mathml passes on what stands in \text, \\tag and \\unicode as it is, and makes links and styles of \\href and
    \\style: what is no part of a formula is text here.
    """
    from latex2mathml.converter import convert

    try:
        return str(bleach.clean(convert(body, display=display), tags=_MATH_TAGS, attributes=_MATH_ATTRIBUTES))
    except Exception:  # of whatever kind: it was written by anybody
        return f"<code>{escape(body, quote=False)}</code>"
