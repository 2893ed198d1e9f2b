"""Text as it is generated."""

from collections.abc import Iterable
from typing import Any


def write(tokens: Iterable[Any], tokenizer: Any, prompt: str = "", end: str = "\n") -> list[int]:
    """Print a text while it is generated, from the first token on, and return the new ids.

    tokens: an iterator of ids, as `generate` gives. tokenizer: anything with `decode(ids, skip_special_tokens=)`,
    a `tokenizers.Tokenizer` for one. prompt: printed before it. A character that several tokens make up is
    printed when its last one is there. Marks such as <end_of_turn> are shown.
    """
    print(prompt, end="", flush=True)
    ids: list[int] = []
    printed = ""
    for token in tokens:
        ids.append(int(token))
        text = tokenizer.decode(ids, skip_special_tokens=False)
        if not text.endswith("\ufffd") and text.startswith(printed):
            print(text[len(printed) :], end="", flush=True)
            printed = text
    rest = tokenizer.decode(ids, skip_special_tokens=False) if ids else ""
    print(rest[len(printed) :] if rest.startswith(printed) else "", end=end, flush=True)
    return ids
