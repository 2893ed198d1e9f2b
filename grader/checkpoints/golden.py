"""Golden generations: what the reference wrote, token by token, and how sure it was of each token.

Here they are only read, without torch and transformers; generated.py makes them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Step:
    """One step of the reference: the token it chose, the second best, and by how much it won.

    logit: the chosen token's logit; margin: that minus the second best's; rms: root mean square of all logits.
    """

    token: int
    runner_up: int
    margin: float
    logit: float
    rms: float

    def near_tie(self, relative: float) -> bool:
        """Whether two right programs may choose differently, each logit being right to within `relative`.

        A right logit x may be off by relative * (|x| + rms) (see tolerance.py). Two logits that move towards
        each other by that much change places if they were less than twice as far apart.
        """
        return self.margin < 2 * relative * (abs(self.logit) + self.rms)


@dataclass(frozen=True)
class Golden:
    """A greedy generation that a right model repeats.

    prompt: the text, or "" where only ids are known. prompt_ids: its tokens, or None (then the
    tokenizer's). new_ids: the tokens that follow; or None, and then `text` is what the decoded tokens
    must begin with. steps: one a token, where recorded. origin: who recorded it, with what.
    """

    prompt: str
    prompt_ids: tuple[int, ...] | None
    new_ids: tuple[int, ...] | None
    text: str | None
    n_tokens: int
    origin: str
    steps: tuple[Step, ...] = ()

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "Golden":
        """From a table of the registry or an object of golden.json."""
        new_ids, prompt_ids = content.get("new_ids"), content.get("prompt_ids")
        return cls(
            prompt=content.get("prompt", ""),
            prompt_ids=None if prompt_ids is None else tuple(prompt_ids),
            new_ids=None if new_ids is None else tuple(new_ids),
            text=content.get("text"),
            n_tokens=content["n_tokens"] if new_ids is None else len(new_ids),
            origin=content["origin"],
            steps=tuple(Step(**step) for step in content.get("steps", ())),
        )


def read_goldens(path: Path) -> tuple[Golden, ...]:
    """The generations in a golden.json; none where there is no such file."""
    if not path.exists():
        return ()
    content = json.loads(path.read_text(encoding="utf-8"))
    return tuple(Golden.from_json({"origin": content["origin"], **golden}) for golden in content["goldens"])
