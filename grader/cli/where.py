"""Where a module of the course stands in production."""

from typing import Annotated

import typer


def where(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="An exercise (qwen3.attention), a lesson (qwen3) or a module (RoPE).")
    ],
) -> None:
    """Say where a module stands in production.

    That is the file and class in transformers, torchtitan, Megatron, vLLM, llama.cpp and others, with a link, and what
    is different there. The page in-production.md, beside the syllabus, has all of it, and what to read first.
    """
    from grader.learning.in_production import terminal_lines
    from grader.learning.in_production import where as places

    print("\n".join(terminal_lines(places(name))))
