"""A model of the course as a folder that other programs load, and onto the hub."""

from pathlib import Path
from typing import Annotated

import typer

from grader.errors import GraderError


def export_model(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL", help="A checkpoint (austen-qwen3), a model's folder, or a program: notebook.ipynb:CLASS."
        ),
    ],
    to: Annotated[Path, typer.Option("--to", metavar="FOLDER", help="Where to write it: a new or empty folder.")],
    weights: Annotated[
        str | None, typer.Option("--weights", help="For a program: a checkpoint, or a model's folder.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16; by default as the weights are.")
    ] = None,
    licence: Annotated[str, typer.Option("--licence", help="For weights of your own, as in apache-2.0.")] = "",
    gguf: Annotated[bool, typer.Option("--gguf", help="A GGUF file in the folder, too, for llama.cpp.")] = False,
    upload: Annotated[
        str | None, typer.Option("--upload", metavar="OWNER/NAME", help="Then upload it to the Hugging Face hub.")
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="With --upload: others can see it.")] = False,
) -> None:
    """Write a model as the Hugging Face hub has it.

    That is a folder which transformers and inference engines load: config, weights, tokenizer, how to generate, and a
    model card. transformers loads it before the command ends: every weight by its name, and the tokenizer with the
    same ids. Of a program of yours the logits are compared, too.
    """
    from grader.checkpoints import checkpoint_of, exported

    is_program = model.endswith((".py", ".ipynb")) or Path(model.rpartition(":")[0]).suffix in (".py", ".ipynb")
    if is_program and weights is None:
        raise GraderError(f"{model} is a program. Say which weights it has: --weights austen-qwen3, or a folder")
    if weights is not None and not is_program:
        raise GraderError(
            f"--weights is for a program, as in qwen3.ipynb:CausalLM, and {model} has weights of its own."
        )
    checkpoint = checkpoint_of(weights or model)
    agrees = None
    if is_program:
        from grader.learning.own import agreement, model_with

        agrees = agreement(model_with(model, checkpoint), model, checkpoint)
    written = exported.export_model(checkpoint, to, dtype, licence, agrees)
    print(
        f"{to}: {written.kind}, {written.parameters:,} parameters in {written.dtype}, {written.size / 1e6:,.1f} MB."
        f" transformers loads it{', and computes what your program does' if is_program else ''}."
    )
    if gguf:
        from grader.checkpoints.gguf_file import write_gguf

        print(f"for llama.cpp: {write_gguf(written.folder, written.folder / f'{written.folder.name}.gguf')}")
    if upload is not None:
        from grader.checkpoints.upload import upload as to_the_hub

        print(f"uploaded: {to_the_hub(written.folder, upload, public)}")
