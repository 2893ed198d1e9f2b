"""A panel to play with: what each way to keep less does to the size of a KV cache."""

import html
from collections.abc import Iterable
from typing import Any

import ipywidgets as widgets
from matplotlib.figure import Figure

from grader.atlas.cache import readable, readable_kib
from grader.atlas.mixing import mixing_of
from grader.atlas.opening import config_of
from grader.atlas.panel import model_controls
from grader.columns import aligned
from grader.config import Config
from grader.errors import GraderError
from grader.instruments import picture
from grader.instruments.panel import Panel, Shown
from grader.instruments.tables import as_html
from grader.kv.sizes import ELEMENT_BYTES, bytes_at, bytes_per_token, layers, remark
from grader.kv.ways import methods, plain

CONTEXTS = [2**i for i in range(9, 21)]
COLOURS = dict(zip(("GQA", "MHA", "MLA"), picture.COLOURS, strict=False))  # dotted with windows
WINDOWS = CONTEXTS[:7]
USUAL = {"latent": 512, "window": 1024, "ratio": 5}  # where a model has none
MOST_HEADS = 128
MOST = {"heads": MOST_HEADS, "kv_heads": MOST_HEADS, "latent": 2048, "ratio": 15}  # unless a model has more
POINTS = 65  # of each curve


def kv_panel(model: str = "Qwen3 8B", context: int = 32_768, **settings: Any) -> Panel:
    """The panel, as the last line of a cell. Everything in it can be reached and moved with the keyboard.

    model: what `grader card` takes: a gallery model's name, a path, or owner/name.
    context: tokens, one of 512, 1,024, ... 1,048,576.
    settings: first values of the other controls: kv_heads, latent, window, ratio, batch, dtype. Raises GraderError
    for a model that is not known, or whose config can't be read.
    """
    controls = _controls(model, context)
    panel = Panel(controls, lambda **values: _shown(**{**values, "model": values["model"].strip() or model}))

    def take_over(_: Any) -> None:
        """A new model, or pasted config, brings its own heads, latent and window."""
        try:
            own = _own(_config(controls["model"].value.strip() or model, controls["pasted"].value)[0])
        except GraderError:
            panel.refresh()
        else:
            with panel.held():
                _follow(controls, own)

    for name in ("model", "pasted"):
        controls[name].observe(take_over, names="value")
    if settings:
        panel.set(**settings)
    return panel


def _controls(model: str, context: int) -> dict[str, Any]:
    style = {"style": {"description_width": "11em"}, "layout": widgets.Layout(width="auto")}
    slider = {**style, "continuous_update": False}
    config, name = config_of(model)
    controls = {
        **model_controls(name, style),
        "heads": widgets.IntSlider(description="query heads", min=1, max=MOST_HEADS, **slider),
        "kv_heads": widgets.IntSlider(description="KV heads (GQA)", min=1, max=MOST_HEADS, **slider),
        "latent": widgets.IntSlider(description="latent + 64 (MLA)", min=64, max=MOST["latent"], step=64, **slider),
        "window": widgets.SelectionSlider(
            description="window (SWA)", options=_counts(WINDOWS), value=USUAL["window"], **slider
        ),
        "ratio": widgets.IntSlider(description="sliding per full layer", min=1, max=MOST["ratio"], **slider),
        "dtype": widgets.SelectionSlider(description="dtype", options=list(ELEMENT_BYTES), value="bfloat16", **slider),
        "batch": widgets.IntSlider(description="sequences", min=1, max=64, value=1, **slider),
        "context": widgets.SelectionSlider(description="tokens", options=_counts(CONTEXTS), value=context, **slider),
    }
    _follow(controls, _own(config))
    return controls


def _counts(numbers: Iterable[int]) -> list[tuple[str, int]]:
    """Options of a slider, as they are written."""
    return [(f"{number:,}", number) for number in sorted(numbers)]


def _config(model: str, pasted: str) -> tuple[Config, str]:
    """The pasted config, or the model's, and what its row is called. Raises GraderError for a text that is none."""
    if not pasted.strip():
        config, name = config_of(model)
        return config, f"{name}, as its config says"
    config = Config.parse(pasted, "what you pasted")
    for read in (layers, plain):  # both refuse what does not say enough
        read(config)
    return config, "what the pasted config says"


def _own(config: Config) -> dict[str, int]:
    """What the model with this config says to each control; the usual where it says nothing."""
    shape, mixers = plain(config), mixing_of(config).mixers
    own = {**USUAL, "heads": shape.num_attention_heads, "kv_heads": shape.num_key_value_heads}
    windows = [mixer.window for mixer in mixers if mixer.window]
    ranks = [mixer.kv_rank for mixer in mixers if mixer.kv_rank]
    if windows:
        own |= {"window": windows[0], "ratio": max(1, round(len(windows) / max(1, len(mixers) - len(windows))))}
    return own | ({"latent": ranks[0]} if ranks else {})


def _follow(controls: dict[str, Any], own: dict[str, int]) -> None:
    """Set the controls to what a model says; a value that a slider has not got is added to it."""
    controls["window"].options = _counts({*WINDOWS, own["window"]})
    for name, value in own.items():
        if name != "window":
            controls[name].max = max(MOST[name], value)
        controls[name].value = value


def _shown(
    model: str,
    pasted: str,
    heads: int,
    kv_heads: int,
    latent: int,
    window: int,
    ratio: int,
    dtype: str,
    batch: int,
    context: int,
) -> Shown:
    own, name = _config(model, pasted)
    size = ELEMENT_BYTES[dtype]
    base = plain(own).replace(num_attention_heads=heads, num_key_value_heads=kv_heads)
    configs = {name: own, **methods(base, latent, 64, window, ratio)}
    whole = bytes_at(configs["MHA"], context, batch, size)
    rows: list[tuple[str, ...]] = []
    for method, config in configs.items():
        total = bytes_at(config, context, batch, size)
        saved = f"{1 - total / whole:.1%}" if method != "MHA" else ""
        rows.append((method, readable_kib(bytes_per_token(config, size)), readable(total), saved))
    note = remark(own)
    lines = aligned([HEADINGS, *rows], [False, *[True] * (len(HEADINGS) - 1)])
    text = "\n".join(line.rstrip() for line in lines)
    numbers = ["text-align: right; padding: 0 1em; white-space: nowrap"] * (len(HEADINGS) - 1)
    table = as_html(rows, ["text-align: left", *numbers], HEADINGS)
    if note:
        text, table = f"{note}\n{text}", f"<p>{html.escape(note)}</p>{table}"
    labels = {row[0]: f"{row[0]}: {row[2]}" + (f" ({row[3]} saved)" if row[3] else "") for row in rows}
    with picture.settings():
        figure = _curves(configs, labels, batch, size, context)
        figure.suptitle(f"{batch} × {context:,} tokens in {dtype}", x=0.01, ha="left", fontsize=9)
    return Shown(figure, text, table)


HEADINGS = ("", "for one token, at the start", "in total", "saved against MHA")


def _curves(configs: dict[str, Config], labels: dict[str, str], batch: int, size: float, context: int) -> Figure:
    figure = Figure(figsize=(8.5, 3.2), dpi=90, layout="constrained")
    axis = figure.subplots()
    lengths = [max(1, round(context * i / (POINTS - 1))) for i in range(POINTS)]
    for name, config in configs.items():
        kept = layers(config)
        values = [batch * sum(layer.bytes_at(length, size) for layer in kept) / 1e9 for length in lengths]
        colour = COLOURS.get(name.removesuffix(" + SWA"), picture.INK)
        style = ":" if name.endswith(" + SWA") else "-" if name in COLOURS else "--"
        axis.plot(lengths, values, label=labels[name], color=colour, linestyle=style, zorder=3 if style == "--" else 2)
    axis.set(xlabel="tokens", ylabel="GB", ylim=(0, None), xlim=(0, context))
    axis.xaxis.set_major_formatter("{x:,.0f}")
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False, fontsize=8)
    return figure
