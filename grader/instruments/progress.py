"""A bar that shows how far a long cell is, and how long it will still take."""

import html
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, TypeVar

Item = TypeVar("Item")
PATIENCE = 0.2  # seconds between two updates
SHORT = 1.0  # seconds: what takes no longer leaves nothing behind


def steps(items: Iterable[Item], what: str = "", total: int | None = None) -> Iterator[Item]:
    """The items, one by one, with a bar below the cell: how many are done, and the time that is left.

    what: what the items are, for the bar. total: how many there are, where `items` has no length. Outside a notebook
    nothing is shown. At the end the bar makes room for the time that it took, if that was a second or more.
    """
    count = total if total is not None else len(items) if isinstance(items, Sized) else None
    bar = _Bar(what, count)
    done = 0
    try:
        for item in items:
            yield item
            done += 1
            bar.show(done)
    finally:
        bar.finish(done)


class Place:
    """A place below the cell whose picture can be exchanged: a plot that grows. Outside a notebook nothing is shown."""

    def __init__(self) -> None:
        self._update = _place_in_notebook()

    def show(self, picture: Any) -> None:
        """Show a picture in place of the one before: anything that a notebook can show, such as a `plots.Picture`."""
        if self._update is not None:
            shown = picture._repr_mimebundle_()
            self._update(*shown if isinstance(shown, tuple) else (shown,))


def duration(seconds: float) -> str:
    """A time in words: "8 s", "1 min 5 s", "2 h 3 min"."""
    whole = round(seconds)
    hours, minutes = whole // 3600, whole // 60 % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {whole % 60} s" if minutes else f"{whole} s"


def line(done: int, total: int | None, seconds: float) -> str:
    """How far it is, in words: "3 of 12, about 40 s left". seconds: what the first `done` took."""
    if total is None:
        return f"{done} in {duration(seconds)}"
    if not done or done >= total:
        return f"{done} of {total}" + (f" in {duration(seconds)}" if done else "")
    return f"{done} of {total}, about {duration(seconds / done * (total - done))} left"


class _Bar:
    def __init__(self, what: str, total: int | None) -> None:
        self._what, self._total = what, total
        self._began = self._shown = time.monotonic()
        self._update = _place_in_notebook()
        self._draw(0)

    def show(self, done: int) -> None:
        now = time.monotonic()
        if now - self._shown >= PATIENCE:
            self._shown = now
            self._draw(done)

    def finish(self, done: int) -> None:
        if time.monotonic() - self._began >= SHORT:
            self._draw(done, ended=True)
        elif self._update is not None:
            self._update({"text/plain": ""})

    def _draw(self, done: int, ended: bool = False) -> None:
        if self._update is None:
            return
        words = line(done, None if ended else self._total, time.monotonic() - self._began)
        words = f"{self._what}: {words}" if self._what else words
        limits = "" if self._total is None else f' value="{done}" max="{self._total}"'
        bar = "" if ended else f'<progress{limits} aria-label="{html.escape(words)}"></progress> '
        self._update({"text/plain": words, "text/html": f"<div>{bar}{html.escape(words)}</div>"})


def _place_in_notebook() -> Callable[..., None] | None:
    """What replaces a place in the cell's output by other data, and metadata if any; None outside a notebook."""
    try:
        from IPython import get_ipython
        from IPython.display import display
    except ImportError:
        return None
    shell = get_ipython()
    if shell is None or not hasattr(shell, "kernel"):
        return None
    handle = display({"text/plain": ""}, raw=True, display_id=True)  # type: ignore[no-untyped-call]
    return lambda data, metadata=None: handle.update(data, metadata=metadata, raw=True)
