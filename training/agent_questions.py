"""Questions for lesson 14's finale: in wordings, and about words, that austen-tools was never trained on.

python training/agent_questions.py solutions/14-agent/texts/questions.json
"""

import json
import sys
from pathlib import Path
from random import Random

from novels import WORDINGS, Novels, Words, question

EACH, SEED = 4, 14
NOVELS = Path(__file__).parents[1] / "grader" / "checkpoints" / "shipped" / "austen-tools" / "novels"


def questions() -> list[dict[str, str]]:
    """Four of each kind, with the right answers."""
    words, random = Words(Novels(NOVELS), kept=True), Random(SEED)
    found: list[dict[str, str]] = []
    for kind in WORDINGS:
        of_kind: dict[str, dict[str, str]] = {}
        while len(of_kind) < EACH:
            asked = question(kind, words, random, new=True)
            of_kind[asked.text] = {"kind": kind, "question": asked.text, "answer": asked.answer}
        found += of_kind.values()
    return found


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(questions(), indent=1) + "\n", encoding="utf-8")
