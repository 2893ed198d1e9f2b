"""A card in a notebook: pick a model, paste a config or change a field, and figure and numbers follow."""

import base64
import html
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import ipywidgets as widgets

from grader.atlas.architecture import Architecture
from grader.atlas.card_rows import rows
from grader.atlas.drawing import figure, parts
from grader.atlas.opening import architecture_of, config_of
from grader.atlas.reading import read
from grader.atlas.shown_models import gallery_models
from grader.config import Config
from grader.errors import GraderError
from grader.instruments import tables


class Card(widgets.VBox):  # type: ignore[misc]
    """Controls over a model's figure and facts. In an output that is stored, the figure and the facts stand alone."""

    def __init__(self, first: Architecture) -> None:
        style = {"style": {"description_width": "9em"}, "layout": widgets.Layout(width="34em", max_width="100%")}
        self.controls: dict[str, Any] = {
            **model_controls(first.name, style),
            "changed": widgets.Text(
                description="change fields",
                placeholder="num_key_value_heads = 4, sliding_window = 512",
                continuous_update=False,
                **style,
            ),
        }
        self._first = first
        self._result = widgets.HTML()
        box = widgets.Box(list(self.controls.values()), layout=widgets.Layout(flex_flow="row wrap"))
        super().__init__([box, self._result])
        for control in self.controls.values():
            control.observe(lambda _: self.refresh(), names="value")
        self.refresh()

    def refresh(self) -> None:
        """Show what the controls say now."""
        try:
            self.architecture = self._asked_for()
        except GraderError as error:
            self.text = str(error)
            self._result.value = f"<b>{html.escape(self.text)}</b>"
            return
        self.text = as_text(self.architecture)
        self._result.value = as_html(self.architecture)

    def _asked_for(self) -> Architecture:
        pasted, named = self.controls["pasted"].value.strip(), self.controls["model"].value.strip()
        name, config = self._first.name, dict(self._first.given)
        if pasted:
            config, name = dict(Config.parse(pasted, "what you pasted")), "the pasted config"
        elif named:
            found, name = config_of(named)
            config = dict(found)
        changes = changed_fields(self.controls["changed"].value)
        if {"num_hidden_layers", "n_layer"} & set(changes):
            config.pop("layer_types", None)  # else the list would have another length
        return read({**config, **changes}, f"{name}, changed" if changes else name)

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        bundle: dict[str, Any] = super()._repr_mimebundle_(**kwargs) or {}
        return {**bundle, "text/plain": self.text, "image/svg+xml": figure(self.architecture)}


def model_controls(first: str, style: Mapping[str, Any]) -> dict[str, widgets.Widget]:
    """Two controls: for the name of a model of the gallery, and for a config.json that takes its place.

    first: the name of the model that is shown at first.
    """
    told = {"continuous_update": False, **style}
    return {
        # No Dropdown: JupyterLab takes the keys that are pressed on one for its own, and "x" would cut the cell.
        "model": widgets.Combobox(
            description="model",
            placeholder=f"{first}; or type another's name",
            options=[model.name for model in gallery_models().values() if model.verified],
            **told,
        ),
        "pasted": widgets.Textarea(
            description="or a config.json",
            placeholder="paste one here: it takes the model's place",
            **told,
        ),
    }


def card(model: str | Path | Mapping[str, Any], name: str = "") -> Card:
    """A model's card, as the last line of a cell. Everything in it can be reached with the keyboard.

    model: a config (its fields), the path of a config.json, a gallery model's name, or a hub repository's.
    name: what the card is headed with. Raises GraderError where the config can't be read.
    """
    return Card(architecture_of(model, name))


def changed_fields(text: str) -> dict[str, Any]:
    """``num_key_value_heads = 4, sliding_window = null`` as fields. Raises GraderError for anything else."""
    found: dict[str, Any] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, sign, value = (word.strip() for word in part.partition("="))
        try:
            found[name] = json.loads(value)
        except ValueError:
            raise GraderError(f"{part!r} is not a change like `num_key_value_heads = 4`; words go in quotes.") from None
        if not sign or not name.isidentifier():
            raise GraderError(f"{part!r} is not a change like `num_key_value_heads = 4`.")
    return found


def as_text(model: Architecture) -> str:
    """The card as lines of text."""
    lines = [model.name, *([model.remark] if model.remark else [])]
    return "\n".join([*lines, *(f"{row.label}: {row.shown}  ({row.source})" for row in rows(model))])


def as_html(model: Architecture) -> str:
    """The figure's panels side by side, or below each other where there is no room, and the facts in a table."""
    images = "".join(
        f'<img style="max-width: 100%; width: 440px" alt="{html.escape(part.description)}"'
        f' src="data:image/svg+xml;base64,{base64.b64encode(part.svg.encode()).decode()}">'
        for part in parts(model)
    )
    left = "text-align: left; vertical-align: top; padding: 0 1em 0 0"
    facts = [(row.label, row.shown, row.source) for row in rows(model)]
    table = tables.as_html(facts, [left, f"{left}; font-weight: bold", left])
    remark = f"<p><b>{html.escape(model.remark)}</b></p>" if model.remark else ""
    flex = "display: flex; flex-wrap: wrap; gap: 8px; align-items: flex-start"
    return f'{remark}<div style="{flex}">{images}</div>{table}'
