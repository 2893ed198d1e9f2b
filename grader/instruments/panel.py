"""Controls over a picture that follows them. Where widgets do not run, the picture alone is there."""

import base64
import html
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ipywidgets as widgets
from matplotlib.figure import Figure

from grader.errors import GraderError
from grader.instruments.picture import as_image, as_png


@dataclass(frozen=True)
class Shown:
    """What a panel shows for one setting of its controls.

    figure: the picture, drawn within `picture.settings`, so that it is dark where its page is. text: the same in
    words and numbers, for screen readers and wherever pictures aren't shown. html: what stands below the picture;
    `text` if it is empty.
    """

    figure: Figure
    text: str
    html: str = ""


class Panel(widgets.Box):  # type: ignore[misc]
    """Controls beside what `show` makes of their values, anew at each change; under it, where there is no room beside.

    controls: by the names of show's arguments. Where show raises GraderError, its words stand over what was shown
    before. In an output that is stored, or printed, the picture of the controls' first values stands in its place.
    """

    def __init__(self, controls: Mapping[str, widgets.Widget], show: Callable[..., Shown]) -> None:
        self.controls, self._show = dict(controls), show
        self._result = widgets.HTML(layout=widgets.Layout(flex="2 1 30em", min_width="0"))
        self._held = False
        column = widgets.VBox(list(self.controls.values()), layout=widgets.Layout(flex="1 1 22em", min_width="0"))
        super().__init__([self._result, column], layout=widgets.Layout(flex_flow="row wrap"))
        for control in self.controls.values():
            control.observe(lambda _: self.refresh(), names="value")
        self.refresh()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Show what the controls say once, after all changes that are made to them within it."""
        self._held = True
        try:
            yield
        finally:
            self._held = False
        self.refresh()

    def set(self, **values: Any) -> None:
        """Give several controls new values, and show the result once."""
        with self.held():
            for name, value in values.items():
                self.controls[name].value = value

    def refresh(self) -> None:
        """Show what the controls say now."""
        if self._held:
            return
        self.error, told = "", ""
        try:
            self.shown = self._show(**{name: control.value for name, control in self.controls.items()})
        except GraderError as error:
            if not hasattr(self, "shown"):
                raise
            self.error = str(error)
            told = f"<p><b>{html.escape(self.error)}</b></p><p>What stands below is from before.</p>"
        shown = self.shown
        words = shown.html or f"<pre>{html.escape(shown.text)}</pre>"
        self._result.value = told + as_image(shown.figure, shown.text) + words

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:
        bundle: dict[str, Any] = super()._repr_mimebundle_(**kwargs) or {}
        picture = base64.b64encode(as_png(self.shown.figure)).decode()
        return {**bundle, "text/plain": self.shown.text, "image/png": picture}
