"""SmolLM2, a Llama, on trained weights: the solution against transformers (`make bench`)."""

from pathlib import Path

from grader.authoring.kit.models import Measured, main

MODELS = [
    Measured(Path(__file__).resolve().parent, "smollm2-135m-instruct", "CausalLM", "Every effort moves you", 24, 3)
]

if __name__ == "__main__":
    main(MODELS)
