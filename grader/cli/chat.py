"""Talk to a model of one's own."""

from typing import Annotated

import typer

from grader.cli.options import tokens


def chat(
    model: Annotated[str, typer.Argument(metavar="NOTEBOOK_OR_MODULE", help="notebook.ipynb:CLASS or model.py:CLASS.")],
    weights: Annotated[str, typer.Option("--weights", help="A name of `grader weights list`, or a model's folder.")],
    context: Annotated[
        int | None,
        typer.Option(parser=tokens, metavar="TOKENS", help="How many tokens a conversation may have: 1024, 8k."),
    ] = None,
    port: Annotated[int, typer.Option("--port", help="Where the page is, on this machine.", min=1, max=65535)] = 8000,
    browser: Annotated[bool, typer.Option(help="Open a browser.")] = True,
) -> None:
    """Talk to your own model, on a page in the browser.

    The page shows its cache, the settings of sampling, and tokens a second.
    """
    from grader.learning.chat_page import require_chainlit, serve
    from grader.learning.talk import talk_with

    require_chainlit()  # before weights are loaded
    talk = talk_with(model, weights, context)
    print(f"http://127.0.0.1:{port} (Ctrl-C ends it)", flush=True)
    serve(talk, f"{model.rpartition(':')[2]} with {weights}", port, browser)
