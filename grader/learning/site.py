"""The sources of the web edition, for Sphinx with MyST-NB: the worked notebooks, and the museum of mistakes.

`grader site` writes them beside what it builds, and executes nothing: outputs are the stored ones.
"""

import html
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from nbformat import NotebookNode

from grader.atlas.site import Taught, write_site
from grader.errors import GraderError
from grader.learning.copies import title_of
from grader.learning.home import write_notebook
from grader.learning.in_production import PAGE as IN_PRODUCTION
from grader.learning.in_production import page as in_production
from grader.learning.museum import MUSEUM, write_mistake_pages, write_museum
from grader.learning.places import SYLLABUS
from grader.lessons.cells import without_markers
from grader.lessons.lesson import lessons
from grader.lessons.notebooks import read_notebook
from grader.package import package_folder

FOLDERS = ("figures", "configs", "texts")
ATLAS = "atlas"
MAP = Path(IN_PRODUCTION).stem
COURSE = "syllabus"
OWN = package_folder() / "learning" / "site_files"
FOLDED = "hide-input"  # MyST-NB folds the code of a cell with this tag
_HEADING = re.compile(r"^# (.+)$", re.MULTILINE)
_TABLE = re.compile(r"^\|.*\|$", re.MULTILINE)
_ARTICLE = re.compile(r"<article[^>]*>(.*)</article>", re.DOTALL)
# A heading's own link is no word of the page.
_TAGS = re.compile(r'<(script|style)\b.*?</\1>|<a class="headerlink".*?</a>|<[^>]+>', re.DOTALL)
_LIST = re.compile(r"<!-- .*? -->\n?")

CONFIGURATION = '''"""Written by `grader site`."""

project = TITLE
author = ""
copyright = ""
extensions = ["myst_nb", "sphinx-mathjax-offline"]
html_theme = "furo"
html_title = project
html_show_sphinx = False
html_show_copyright = False
exclude_patterns = ["_extra", "_own"]
html_extra_path = ["_extra"]
html_static_path = ["_own"]
html_css_files = ["style.css"]
html_js_files = ["excerpts-here.js"]
html_copy_source = False
nb_execution_mode = "off"
nb_merge_streams = True
nb_code_prompt_show = "Show the code"
nb_code_prompt_hide = "Hide the code"
myst_enable_extensions = ["dollarmath", "amsmath"]
myst_heading_anchors = 4
suppress_warnings = ["mystnb.unknown_mime_type", "myst.header"]
'''

FRONT = """# {title}

Rebuild modern language models from scratch, in JupyterLab, and *know* that you got them right: every module that you
write is checked against numbers recorded from Hugging Face transformers, and a model that you finish has to write the
same text as the reference, token for token.

```{{raw}} html
<div class="doors">
<a href="{first}.html"><b>Read the lessons</b> {lessons} notebooks, their solutions folded</a>
<a href="atlas/index.html"><b>Look a model up</b> {models} architectures, each with a figure, facts and cache sizes</a>
<a href="{museum}.html"><b>Visit the mistakes</b> {mistakes:,} wrong programs, and what each does to the numbers</a>
</div>
```

{picture}

## The lessons

{table}
"""
PICTURE = """```{image} _own/check.png
:alt: A check that fails and names the mistake, and the same check passing
:class: shown-check
```"""
ABOUT_ATLAS = """# The atlas of architectures

{models} models, each read off its `config.json`: a figure, facts that know their field, cache sizes at any context, and
a comparison of any two.

<a href="atlas/index.html">Open the atlas</a>
"""


def write_site_sources(
    root: Path, target: Path, teaching: Callable[[Callable[[str], str]], Mapping[str, Taught]]
) -> list[str]:
    """Write what Sphinx builds the web edition of the course in `root` from; returns the pages, without endings.

    `target` is made anew. teaching: what the lessons teach, for the atlas's gallery; it is given a function that says
    where a lesson's page is, from the gallery's folder lessons/. Raises GraderError where a lesson is not built.
    """
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    shutil.copytree(OWN, target / "_own")
    pages, museum = [], {}
    for lesson in lessons(root):
        if not lesson.notebook.is_file():
            raise GraderError(f"{lesson.name} is not built. `grader build {lesson.name}` builds it.")
        notebook = read_notebook(lesson.notebook)
        write_notebook(for_the_site(notebook), target / lesson.name / lesson.notebook.name)
        for folder in FOLDERS:
            if (lesson.folder / folder).is_dir():
                shutil.copytree(lesson.folder / folder, target / lesson.name / folder)
        page = f"{lesson.name}/{lesson.notebook.stem}"
        pages.append(page)
        title = title_of(notebook) or lesson.name
        museum[lesson.name] = title, write_mistake_pages(lesson, title, page, target)
    write_museum(museum, target)
    by_lesson = {page.partition("/")[0]: f"../../{page}.html" for page in pages}
    syllabus = _LIST.sub("", (root / "course" / SYLLABUS).read_text(encoding="utf-8"))
    for figure in sorted((root / "course").glob("*.svg")):
        shutil.copyfile(figure, target / figure.name)
    heading = _HEADING.search(syllabus)
    title = heading[1].partition(":")[0] if heading else "The course"
    taught = teaching(lambda name: by_lesson.get(name, ""))
    models = write_site(target / "_extra" / "atlas", taught, back=(title, "../index.html"))
    (target / f"{ATLAS}.md").write_text(ABOUT_ATLAS.format(models=models), encoding="utf-8")
    (target / f"{COURSE}.md").write_text(syllabus, encoding="utf-8")
    text = in_production(root / "course").replace(f"({SYLLABUS})", f"({COURSE}.md)")
    (target / IN_PRODUCTION).write_text(text, encoding="utf-8")
    front = FRONT.format(
        title=title,
        first=COURSE,
        lessons=len(pages),
        models=models,
        museum=MUSEUM,
        mistakes=sum(len(shown) for _, shown in museum.values()),
        picture=_picture(root, target),
        table="\n".join(_TABLE.findall(syllabus)),
    )
    tree = "\n".join(["```{toctree}", ":hidden:", "", COURSE, *pages, MUSEUM, ATLAS, MAP, "```"])
    (target / "index.md").write_text(f"{front}\n{tree}\n", encoding="utf-8")
    (target / "conf.py").write_text(CONFIGURATION.replace("TITLE", repr(title)), encoding="utf-8")
    return ["index", COURSE, *pages, MUSEUM, ATLAS, MAP]


def _picture(root: Path, target: Path) -> str:
    """What a check says, as the README shows it; nothing in a course without that picture."""
    picture = root / "docs" / "check.png"
    if not picture.is_file():
        return ""
    shutil.copyfile(picture, target / "_own" / picture.name)
    return PICTURE


def write_excerpts(built: Path) -> tuple[int, float]:
    """Write what the search of the site `built` shows of each page where it is opened from its folder.

    Returns how many pages the site has, and its size in MB.
    """
    texts = {}
    for page in sorted(built.rglob("*.html")):
        if found := _ARTICLE.search(page.read_text(encoding="utf-8")):
            words = " ".join(html.unescape(_TAGS.sub(" ", found[1])).split())
            texts[page.relative_to(built).as_posix()] = html.escape(words)
    script = f"window.EXCERPTS = {json.dumps(texts, ensure_ascii=False)};\n"
    (built / "_static" / "excerpts.js").write_text(script, encoding="utf-8")
    files = [path for path in built.rglob("*") if path.is_file()]
    return len([path for path in files if path.suffix == ".html"]), sum(path.stat().st_size for path in files) / 1e6


def for_the_site(notebook: NotebookNode) -> NotebookNode:
    """The worked notebook with its solutions, and what an author folded, folded; code without an author's marks."""
    for cell in notebook.cells:
        if cell.cell_type != "code":
            continue
        if "exercise" in cell.metadata or cell.metadata.get("jupyter", {}).get("source_hidden"):
            cell.metadata["tags"] = [*cell.metadata.get("tags", []), FOLDED]
        told = cell.metadata.setdefault("mystnb", {})
        if "exercise" in cell.metadata:
            told |= {f"code_prompt_{verb}": f"{verb.title()} the solution" for verb in ("show", "hide")}
        if words := " ".join(pictures_in_words(cell)):
            told["image"] = {"alt": words}
        cell.source = without_markers(cell.source)
    return notebook


def pictures_in_words(cell: NotebookNode) -> Iterator[str]:
    """What a cell's stored pictures show, in words; MyST-NB knows only their files' names."""
    for output in cell.outputs:
        if "image/png" in output.get("data", {}):
            shown = output.metadata.get("image/png", {}).get("alt") or output.data.get("text/plain", "")
            if not shown.startswith("<"):  # matplotlib's "<Figure size ...>"
                yield " ".join(shown.split())
