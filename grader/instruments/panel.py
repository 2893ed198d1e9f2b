"""Controls over a picture that follows them. Where widgets do not run, the picture alone is there."""

import base64
import html
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import ipywidgets as widgets
from matplotlib.figure import Figure


@dataclass(frozen=True)
class Shown:
    """What a panel shows for one setting of its controls.

    figure: the picture. text: the same in words and numbers, for screen readers and wherever pictures aren't shown.
    html: what stands above the picture; `text` if it is empty.
    """

    figure: Figure
    text: str
    html: str = ""


class Panel(widgets.VBox):  # type: ignore[misc]
    """Controls, and under them what `show` makes of their values, anew at each change.

    controls: by the names of show's arguments. In an output that is stored, or printed, the picture of the controls'
    first values stands in its place.
    """

    def __init__(self, controls: Mapping[str, widgets.Widget], show: Callable[..., Shown]) -> None:
        self.controls, self._show = dict(controls), show
        self._result = widgets.HTML()
        self._held = False
        rows = widgets.Layout(flex_flow="row wrap")
        super().__init__([widgets.Box(list(self.controls.values()), layout=rows), self._result])
        for control in self.controls.values():
            control.observe(lambda _: self.refresh(), names="value")
        self.refresh()

    def set(self, **values: Any) -> None:
        """Give several controls new values, and show the result once."""
        self._held = True
        try:
            for name, value in values.items():
                self.controls[name].value = value
        finally:
            self._held = False
        self.refresh()

    def refresh(self) -> None:
        """Show what the controls say now."""
        if not self._held:
            self.shown = self._show(**{name: control.value for name, control in self.controls.items()})
            picture = (
                f'<img style="max-width: 100%" src="data:image/png;base64,{_png(self.shown.figure)}"'
                f' alt="{html.escape(self.shown.text)}">'
            )
            self._result.value = (self.shown.html or f"<pre>{html.escape(self.shown.text)}</pre>") + picture

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        bundle: dict[str, Any] = super()._repr_mimebundle_(**kwargs) or {}
        return {**bundle, "text/plain": self.shown.text, "image/png": _png(self.shown.figure)}


def _png(figure: Figure) -> str:
    """The figure as base64."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor="white")
    return base64.b64encode(buffer.getvalue()).decode()
