"""A report as an HTML page of its own: one file, light or dark as its reader's system is."""

import html
from collections.abc import Sequence

from grader.report import DARK, LIGHT, Line, to_html


def to_page(lines: Sequence[Line], title: str) -> str:
    """The page. title: plain text, which is shown above the report."""
    dark = ";".join(f"--g-{name}:{colour}" for name, colour in DARK.items())
    name = html.escape(title)
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width,initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{name}</title>
</head>
<body>
<h1>{name}</h1>
{to_html(lines)}
<style>
body{{margin:0 auto;padding:1em;max-width:70em;background:{LIGHT["page"]};color:{LIGHT["text"]};
 font:15px/1.5 system-ui,sans-serif}}
h1{{font-size:1.2em;overflow-wrap:anywhere}}
body .grader-report{{max-width:none;padding:0}}
@media(prefers-color-scheme:dark){{
body{{background:{DARK["page"]};color:{DARK["text"]}}}
body .grader-report{{{dark}}}
}}
</style>
</body>
</html>
"""
