"""Writes the gallery: a static site that opens from its folder, offline."""

import json
import shutil
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from grader.atlas.architecture import Architecture
from grader.atlas.cache import caches
from grader.atlas.card_rows import rows
from grader.atlas.changes import concepts
from grader.atlas.compare import summary
from grader.atlas.drawing import parts
from grader.atlas.fields import shown
from grader.atlas.shown_models import TOLD, GalleryModel, Source, gallery_models
from grader.atlas.timeline import KINDS, firsts, kinds_of, thumbnail, timeline

# What people search for, by the word that stands in what is said of a model.
SYNONYMS = {
    "experts": "moe mixture of experts sparse mlp",
    "multi-head": "mha full attention",
    "multi-query": "mqa",
    "grouped-query": "gqa grouped queries",
    "sliding window": "swa local attention windowed",
    "latent (mla)": "multi-head latent attention compressed kv",
    "sparse": "dsa nsa lightning indexer selection",
    "linear": "deltanet gated delta recurrent hybrid",
    "state space": "ssm mamba recurrent hybrid",
    "qk": "qk-norm qk norm query-key normalisation",
    "learned": "absolute positions",
}
NO_DATE, NO_LICENCE = "date not found", "licence not found"
STATIC = files("grader.atlas") / "static"


@dataclass(frozen=True)
class Taught:
    """What a lesson teaches. concepts: words of changes.ORDER. can: what a learner can do afterwards, completing "you
    can ...". page: where the lesson can be read, from the site's folder lessons/; empty where it can't be there.
    """

    title: str
    concepts: Sequence[str]
    can: str = ""
    page: str = ""


def write_site(to: Path, teaching: Mapping[str, Taught], back: tuple[str, str] | None = None) -> int:
    """Write the site into the folder `to`. Returns how many models it shows.

    teaching: the lessons by name. Each gets a page, and a model's page names those that lead to it.
    back: the title and the address, from `to`, of the site that this one is a part of.
    """
    models = gallery_models()
    for folder in ("models", "figures", "lessons"):
        (to / folder).mkdir(parents=True, exist_ok=True)
    for name in ("style.css", "align.js", "app.js"):
        with as_file(STATIC / name) as path:
            shutil.copyfile(path, to / name)
    for model in models.values():
        if model.architecture:
            (to / "figures" / f"{model.slug}.js").write_text(figure_script(model.slug, model.architecture), "utf-8")
        (to / "models" / f"{model.slug}.html").write_text(page(model, teaching), encoding="utf-8")
    for name, taught in teaching.items():
        (to / "lessons" / f"{name}.html").write_text(lesson_page(name, taught), encoding="utf-8")
    data = [entry(model) for model in models.values()]
    (to / "data.js").write_text(f"window.MODELS = {json.dumps(data, ensure_ascii=False)};\n", encoding="utf-8")
    (to / "index.html").write_text(index(list(models.values()), back), encoding="utf-8")
    return len(models)


def figure_script(slug: str, found: Architecture) -> str:
    """A script with a model's panels, the first one's spots and its bands, for a comparison.

    (A page that is opened from a folder may fetch no file.)
    """
    panels = parts(found)
    canvas = panels[0].canvas
    told = {
        "panels": {panel.name: panel.svg for panel in panels},
        "spots": {key: [says, box.x, box.y, box.w, box.h] for key, (says, box) in canvas.spots.items()},
        "bands": canvas.bands,
        "repeated": str(len(found.layers)),
    }
    return f'(window.FIGURES ??= {{}})["{slug}"] = {json.dumps(told, ensure_ascii=False)};\n'


def entry(model: GalleryModel) -> dict[str, Any]:
    """What the list needs of one model."""
    told: dict[str, Any] = {
        "slug": model.slug,
        "name": model.name,
        "developer": model.developer,
        "date": model.date,
        "licence": model.licence,
        "verified": model.verified,
        "defaults": model.of_class,
        "mix": "",
        "kinds": [],
        "decoder": "",
        "size": model.published,
        "parameters": None,
        "context": "",
        "longest": None,
        "thumbnail": "",
        "kib": "",
        "cache": None,
        "summary": {},
        "description": "",
    }
    if model.architecture:
        told |= _told(model.architecture)
    if model.of_class:
        told["context"] += " (its class's default)"
    words = [model.name, model.developer, model.date, model.licence, told["mix"], told["decoder"], *told["kinds"]]
    text = " ".join([*words, *told["summary"].values()]).lower()
    return {**told, "text": " ".join([text, *(more for word, more in SYNONYMS.items() if word in text)])}


def _told(found: Architecture) -> dict[str, Any]:
    lines = summary(found)
    lines.pop("cache at 131,072 tokens")  # the slider's
    return {
        "mix": lines["layer mix"],
        "kinds": kinds_of(found),
        "decoder": lines["decoder"],
        "size": lines["scale"].replace(" parameters", ""),
        "parameters": found.parameters,
        "context": shown(found.facts["context"].value),
        "longest": found.facts["context"].value,
        "thumbnail": thumbnail(found),
        "kib": lines["cache for one token"],
        "cache": cache_groups(found),
        "summary": lines,
        "description": parts(found)[0].description,
    }


def cache_groups(found: Architecture) -> list[list[int]]:
    """Layers that keep the same: how many, numbers an entry, window (0: none), bytes of a state, rate, waiting."""
    kept = [(one.values_per_token, one.window or 0, one.bytes_at(0), one.rate, one.waiting) for one in caches(found)]
    counted = Counter(kept)
    return [[number, *told] for told, number in counted.items()]


def index(models: Sequence[GalleryModel], back: tuple[str, str] | None = None) -> str:
    """The first page. back: title and address of what it is a part of."""
    text = (STATIC / "index.html").read_text(encoding="utf-8")
    readable = [model for model in models if model.architecture]
    used = {kind for model in readable if model.architecture for kind in kinds_of(model.architecture)}
    fill = {
        "back": f'<p><a href="{escape(back[1])}">{escape(back[0])}</a></p>\n' if back else "",
        "count": str(len(models)),
        "verified": str(len(readable)),
        "defaults": str(sum(model.of_class for model in models)),
        "kinds": "".join(f"<option>{escape(kind)}</option>" for kind in KINDS if kind in used),
        "options": "".join(f'<option value="{model.slug}">{escape(model.name)}</option>' for model in readable),
        "links": "".join(f'<li><a href="models/{model.slug}.html">{escape(model.name)}</a></li>' for model in models),
        "timeline": timeline(readable),
        "firsts": firsts(readable),
    }
    for name, value in fill.items():
        text = text.replace(f"{{{name}}}", value)
    return text


def page(model: GalleryModel, teaching: Mapping[str, Taught]) -> str:
    """One model's page."""
    found = model.architecture
    described = [model.developer, model.date or NO_DATE, model.licence or NO_LICENCE]
    links = []
    if model.hub:
        links.append(f'<a href="{escape(model.hub)}">on the hub</a>')
    if model.report:
        links.append(f'<a href="{escape(model.report)}">report</a>')
    seen = escape(model.source_words)
    if model.source_link:
        seen = f'<a href="{escape(model.source_link)}">{seen}</a>'
    body = [
        f"<h1>{escape(model.name)}</h1>",
        f'<p class="muted">{escape(" · ".join(part for part in described if part))}</p>',
        f"<p>{' · '.join(links)}</p>",
        f"<p{'' if found else ' class=mark'}>Config: {seen} (seen {model.read}).</p>",
    ]
    if model.published:
        body.append(f"<p>Published size: {escape(model.published)}.</p>")
    if model.notes:
        notes = "".join(f"<li>{escape(note)}</li>" for note in model.notes)
        body.append(f"<h2>Where published figures differ, and why</h2><ul>{notes}</ul>")
    if found:
        body += _read_off(found, teaching)
    body.append(f"<details><summary>Where this was seen</summary><ul>{_seen(model)}</ul></details>")
    return _document(model.name, body)


def lesson_page(name: str, taught: Taught) -> str:
    """A lesson's page: what it teaches, and the models that it leads to, those with most of it first."""
    shares = {}
    for model in gallery_models().values():
        if model.architecture:
            shares[model.slug] = len(set(taught.concepts) & _own_concepts(model.architecture))
    nearest = sorted((slug for slug, share in shares.items() if share), key=lambda slug: -shares[slug])
    names = gallery_models()
    lines = "".join(f'<li><a href="../models/{slug}.html">{escape(names[slug].name)}</a></li>' for slug in nearest)
    body = [f"<h1>Lesson {escape(name.partition('-')[0])}: {escape(taught.title)}</h1>"]
    if taught.can:
        body.append(f"<p>Afterwards you can {escape(taught.can)}.</p>")
    if taught.page:
        body.append(f'<p><a href="{escape(taught.page)}">Read the lesson</a></p>')
    body.append(f"<p>In the course's folder: <code>grader lab</code>, then <code>{escape(name)}</code>.</p>")
    told = ", ".join(escape(concept.replace("_", " ")) for concept in taught.concepts)
    body.append(f"<p>It teaches: {told}.</p><h2>Models that have what it teaches</h2><ul>{lines}</ul>")
    return _document(taught.title, body)


def _own_concepts(found: Architecture) -> set[str]:
    """What a model's program is made of, without what every model has."""
    return set(concepts(found)) - {"embedding", "head", "norm_placement"}


def _document(title: str, body: Sequence[str]) -> str:
    """A page in one of the site's folders."""
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f'<title>{escape(title)}</title>\n<link rel="stylesheet" href="../style.css">\n</head>\n<body>\n'
        '<p><a href="../index.html">Atlas of language models</a></p>\n<main>\n'
        + "\n".join(body)
        + "\n</main>\n</body>\n</html>\n"
    )


def _seen(model: GalleryModel) -> str:
    """A line for each source of what is told beside the config: its facts, whose it is, where."""
    lines: dict[Source, list[str]] = {}
    for fact in TOLD:
        for source in dict.fromkeys(model.told_by(fact)):
            lines.setdefault(source, []).append(fact)
    found = []
    for source, facts in lines.items():
        place = escape(source.place)
        if source.link:
            place = f'<a href="{escape(source.link)}">{place}</a>'
        found.append(f"<li>{', '.join(facts)}: {escape(source.what)}, {place}</li>")
    return "".join(found)


def _read_off(found: Architecture, teaching: Mapping[str, Taught]) -> list[str]:
    figures = "".join(f"<figure>{part.svg}</figure>" for part in parts(found))
    lines = "".join(
        f"<tr><td>{escape(row.label)}</td><td>{escape(row.shown)}</td><td class=muted>{escape(row.source)}</td></tr>"
        for row in rows(found)
    )
    remark = f'<p class="mark">{escape(found.remark)}</p>' if found.remark else ""
    body = [f'<h2>Figure</h2>{remark}<div class="panels">{figures}</div>']
    body.append(
        '<h2>Facts</h2><div class="scroll"><table class="facts">'
        "<thead><tr><th>fact</th><th>value</th><th>from</th></tr></thead>"
        f"<tbody>{lines}</tbody></table></div>"
    )
    by_lesson: dict[str, list[str]] = {}
    for concept in concepts(found):  # in the order of a port; each leads to the first lesson that teaches it
        if concept in _own_concepts(found):
            for name in [name for name, taught in teaching.items() if concept in taught.concepts][:1]:
                by_lesson.setdefault(name, []).append(concept.replace("_", " "))
    lessons = [
        f'<li>{escape(", ".join(taught))}: <a href="../lessons/{name}.html">{escape(name.partition("-")[0])}'
        f" {escape(teaching[name].title)}</a></li>"
        for name, taught in by_lesson.items()
    ]
    if lessons:
        body.append(f"<h2>Lessons that lead to it</h2><ul>{''.join(lessons)}</ul>")
    return body
