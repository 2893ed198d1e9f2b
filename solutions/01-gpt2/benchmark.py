"""GPT-2 on trained weights: the solution against transformers (`make bench`)."""

from pathlib import Path

from grader.authoring.kit.models import Measured, main

MODELS = [
    Measured(Path(__file__).resolve().parent, "austen-gpt2", "GPT2", "It is a truth universally acknowledged", 64, 5)
]

if __name__ == "__main__":
    main(MODELS)
