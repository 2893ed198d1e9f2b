"""How generation without a cache is used."""

from typing import Any

from grader.authoring.drives.generation import python_ints


def generated_without_cache(generate: Any, *given: Any) -> list[int]:
    """The tokens that `generate` writes with a model that has no cache."""
    return python_ints(generate(*given))
