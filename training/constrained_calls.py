"""Tool calls of a small model, written freely and under the mask of lesson 14: how many parse, how many are right.

    python training/constrained_calls.py solutions/14-agent/texts/constrained.json

SmolLM2-135M-Instruct gets twenty questions about words in novels and the description of two tools. It decodes greedily,
once as it likes and once among the tokens that `allowed_tokens` allows. Weights: `grader weights get
smollm2-135m-instruct`.
"""

import copy
import json
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from grader import load_checkpoint
from grader.authoring.kit.solved import lesson_of

LESSON = lesson_of(str(Path(__file__).parents[1] / "solutions" / "14-agent" / "others.py"))
BOOKS = ["emma", "persuasion", "pride", "sense"]
WORDS = ["carriage", "letter", "music", "garden", "dinner", "sister", "winter", "weather", "captain", "happiness"]
ASKED = {
    "count": 'How often does "{word}" occur in {book}?',
    "search": 'Where does "{word}" first occur in {book}?',
}
SYSTEM = """You answer with one tool call in JSON and nothing else. The tools:
count(word, book): how often a word occurs in a book
search(word, book): where a word first occurs in a book
Books: emma, persuasion, pride, sense
Example: {"name": "count", "arguments": {"word": "rain", "book": "sense"}}"""
LETTERS = "abcdefghijklmnopqrstuvwxyz"
PARTS: list[Any] = [
    ['{"name": "'], list(ASKED), ['", "arguments": {"word": "'], (LETTERS, 1, 15), ['", "book": "'], BOOKS, ['"}}'],
]  # fmt: skip
SCHEMA = {
    "type": "object",
    "required": ["name", "arguments"],
    "additionalProperties": False,
    "properties": {
        "name": {"enum": list(ASKED)},
        "arguments": {
            "type": "object",
            "required": ["word", "book"],
            "additionalProperties": False,
            "properties": {"word": {"type": "string"}, "book": {"enum": BOOKS}},
        },
    },
}
LONGEST = 40


def questions() -> list[tuple[str, dict[str, Any]]]:
    """Twenty questions, each with the right call."""
    found = []
    for i, word in enumerate(WORDS * 2):
        name, book = list(ASKED)[i // len(WORDS)], BOOKS[i % len(BOOKS)]
        right = {"name": name, "arguments": {"word": word, "book": book}}
        found.append((ASKED[name].format(word=word, book=book), right))
    return found


def alphabet() -> dict[str, int]:
    """Which byte each character of GPT-2's byte alphabet stands for."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    return {chr(b): b for b in plain} | {chr(256 + i): b for i, b in enumerate(others)}


class Writer:
    """SmolLM2, greedy, with the cache of transformers."""

    def __init__(self) -> None:
        checkpoint = load_checkpoint("smollm2-135m-instruct")
        self.tokenizer, config = checkpoint.tokenizer, LlamaConfig(**dict(checkpoint.config))
        self.model: Any = LlamaForCausalLM(config).eval()
        self.model.load_state_dict(checkpoint.state_dict(), strict=False)
        self.model.tie_weights()
        self.end = int(self.tokenizer.token_to_id("<|im_end|>") or 0)
        bytes_of = alphabet()
        special = {i for i, token in self.tokenizer.get_added_tokens_decoder().items() if token.special}
        texts = [self.tokenizer.id_to_token(i) or "" for i in range(config.vocab_size)]
        self.vocabulary = [b"" if i in special else bytes(bytes_of[c] for c in text) for i, text in enumerate(texts)]
        self.automaton = LESSON.solutions["automaton_of"](PARTS)
        self.known: dict[int, dict[int, int]] = {}
        self.read: Any = self.prefix()

    @torch.no_grad()
    def prefix(self) -> Any:
        """The cache of what all questions begin with."""
        ids = self.tokenizer.encode(f"<|im_start|>system\n{SYSTEM}<|im_end|>\n").ids
        return self.model(torch.tensor([ids]), use_cache=True).past_key_values

    def allowed(self, state: int) -> dict[int, int]:
        if state not in self.known:
            self.known[state] = LESSON.solutions["allowed_tokens"](self.automaton, state, self.vocabulary, self.end)
        return self.known[state]

    @torch.no_grad()
    def write(self, question: str, masked: bool) -> str:
        asked = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
        new = torch.tensor([self.tokenizer.encode(asked).ids])
        cache, written, state = copy.deepcopy(self.read), [], 0
        for _ in range(LONGEST):
            out = self.model(new, past_key_values=cache, use_cache=True)
            logits = out.logits[0, -1]
            if masked:
                allowed = self.allowed(state)
                token = max(allowed, key=lambda i: float(logits[i]))
                state = allowed[token]
            else:
                token = int(logits.argmax())
            if token == self.end:
                break
            written.append(token)
            new = torch.tensor([[token]])
        text: str = self.tokenizer.decode(written)
        return text


def judged(text: str, right: dict[str, Any]) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return {"text": text, "parses": False, "valid": False, "right": False}
    valid = not LESSON.solutions["problems"](SCHEMA, value)
    return {"text": text, "parses": True, "valid": valid, "right": value == right}


def main(path: Path) -> None:
    torch.set_num_threads(1)
    writer = Writer()
    rows = []
    for question, right in questions():
        row = {"question": question, "wanted": right}
        for name, masked in (("free", False), ("masked", True)):
            row[name] = judged(writer.write(question, masked), right)
        rows.append(row)
        print(question, "|", row["free"]["text"][:90], "|", row["masked"]["text"], flush=True)
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"model": "smollm2-135m-instruct", "rows": rows}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
