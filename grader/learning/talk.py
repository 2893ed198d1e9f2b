"""A conversation with a learner's own model: what it was told becomes ids, and its tokens come back as text.

A model that has `new_cache(batch, capacity)`, and takes the cache as its second argument, keeps what it has read, so
that only what a message adds is read. Any other model reads the whole text again for every token.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from torch import Tensor

from grader.checkpoints import checkpoint_of
from grader.checkpoints.checkpoint import Checkpoint
from grader.checks.probe.running import learner_traceback, stub_of
from grader.config import Config
from grader.errors import GraderError
from grader.learning.own import model_with

LONGEST = 4096  # tokens of a conversation where nothing else is asked for: a cache for all of them is made at once
Message = Mapping[str, str]


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn. temperature 0 takes the most likely; top_k 0 and top_p 1 leave all to choose from."""

    temperature: float = 0.7
    top_k: int = 0
    top_p: float = 0.95
    longest: int = 256

    def draw(self, logits: Tensor) -> int:
        """A token. logits: [vocab_size], of the last position."""
        if self.temperature == 0:
            return int(logits.argmax())
        ordered, ids = (logits.float() / self.temperature).softmax(-1).sort(descending=True)
        if self.top_k:
            ordered = ordered[: self.top_k]
        before = ordered.cumsum(0) - ordered  # the share of those that are more likely
        ordered = ordered[before < self.top_p * ordered.sum()]  # never empty: nothing is before the first
        return int(ids[torch.multinomial(ordered, 1)])


@dataclass(frozen=True)
class Reply:
    """How far an answer is. text: all of it so far; tokens: how many were written, in `seconds`, the first not counted,
    for which the prompt is read. held: tokens of the conversation; context: how many there is room for.
    """

    text: str
    tokens: int
    seconds: float
    held: int
    context: int

    @property
    def per_second(self) -> float:
        """Tokens a second, without the prompt; 0 for a single token."""
        return (self.tokens - 1) / self.seconds if self.tokens > 1 and self.seconds else 0.0

    @property
    def full(self) -> bool:
        """Whether there is no room for another token."""
        return self.held >= self.context

    @property
    def line(self) -> str:
        """What a page says under an answer."""
        speed = f"{self.per_second:.1f} tokens/s · " if self.per_second else ""
        share = f"{speed}{self.tokens} tokens · context {self.held:,} of {self.context:,}"
        return (
            f"{share}: it is full, start a new conversation"
            if self.full
            else f"{share} ({self.held / self.context:.0%})"
        )


class Talk:
    """A model to talk to. template: the checkpoint's chat template; without one it continues what is written.

    ends: ids that end an answer. context: how many tokens a conversation may have.
    """

    def __init__(self, model: Any, tokenizer: Any, template: str | None, ends: Sequence[int], context: int) -> None:
        self.model, self.tokenizer, self.ends, self.context = model, tokenizer, frozenset(ends), context
        self.template = _environment().from_string(template) if template else None
        self._cache: Any = None
        self._read: list[int] = []  # what the cache has the keys and values of

    @property
    def has_cache(self) -> bool:
        """Whether the model keeps what it has read."""
        return hasattr(self.model, "new_cache")

    def ids(self, messages: Sequence[Message]) -> list[int]:
        """The conversation as the model reads it. messages: each with `role` (system, user, assistant) and `content`.

        Raises GraderError where the chat template refuses it.
        """
        if self.template is None:
            return list(self.tokenizer.encode("".join(message["content"] for message in messages)).ids)
        try:
            text = self.template.render(messages=list(messages), add_generation_prompt=True, bos_token="", eos_token="")
        except TemplateError as error:
            raise GraderError(f"the checkpoint's chat template can't be used here: {error}.") from None
        return list(self.tokenizer.encode(text, add_special_tokens=False).ids)

    def reply(self, messages: Sequence[Message], sampling: Sampling) -> Iterator[Reply]:
        """The answer, as it is written: one Reply a token. Closing the iterator stops it.

        Raises GraderError where the conversation has no room, or the model fails.
        """
        ids = self.ids(messages)
        if not ids:
            raise GraderError("there is nothing to continue: write a word or two.")
        if len(ids) >= self.context:
            raise GraderError(
                f"the conversation has {len(ids):,} tokens, and there is room for {self.context:,}. Start a new one."
            )
        written: list[int] = []
        began = 0.0
        while len(written) < sampling.longest and len(ids) < self.context:
            token = sampling.draw(self._next(ids))
            began = began or time.perf_counter()
            if token in self.ends:
                break
            ids.append(token)
            written.append(token)
            yield Reply(self._text(written), len(written), time.perf_counter() - began, len(ids), self.context)
        if not written:
            yield Reply("", 0, 0.0, len(ids), self.context)

    def _text(self, written: list[int]) -> str:
        return str(self.tokenizer.decode(written, skip_special_tokens=True)).removesuffix("\ufffd")

    def _next(self, ids: list[int]) -> Tensor:
        """The logits after these ids: [vocab_size]. Reads what is new where there is a cache."""
        new = ids
        if self.has_cache:
            if self._cache is None or ids[: len(self._read)] != self._read or len(ids) == len(self._read):
                self._cache, self._read = self._called(self.model.new_cache, 1, self.context), []
            new = ids[len(self._read) :]
        device = next(self.model.parameters()).device
        with torch.no_grad():
            logits = self._called(self.model, torch.tensor([new], device=device), *([self._cache] * self.has_cache))
        if not isinstance(logits, Tensor) or logits.shape[:2] != (1, len(new)) or logits.dim() != 3:
            got = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
            raise GraderError(
                f"your model gave {got} for ids of [1, {len(new)}], and [1, {len(new)}, vocab_size] is needed."
            )
        self._read = list(ids)
        return logits[0, -1]

    def try_out(self) -> None:
        """Read one token, and forget it. Raises GraderError where the model fails, or is not written yet."""
        self._next([0])
        self._cache, self._read = None, []

    def _called(self, function: Any, *arguments: Any) -> Any:
        try:
            return function(*arguments)
        except NotImplementedError as error:
            if name := stub_of(error):
                raise GraderError(f"{name} is not written yet. Write it before you talk.") from None
            raise GraderError("\n  ".join(("your model fails:", *learner_traceback(error)))) from None
        except Exception as error:  # the learner's code may raise anything
            self._cache, self._read = None, []
            raise GraderError("\n  ".join(("your model fails:", *learner_traceback(error)))) from None


def talk_with(target: str, weights: str, context: int | None = None) -> Talk:
    """The model that `target` names (``qwen3.ipynb:CausalLM``), with a checkpoint's weights, or those of a folder.

    context: how many tokens a conversation may have; None: all that the model can read, but at most LONGEST.
    Raises GraderError where there is no such model or checkpoint, or where they do not fit.
    """
    checkpoint = checkpoint_of(weights)
    config = checkpoint.config
    made = model_with(target, checkpoint)
    most = int(config.get("max_position_embeddings") or config.get("n_positions") or LONGEST)
    if context is not None and not 2 <= context <= most:
        raise GraderError(f"--context {context} is not possible: {weights} reads 2 to {most:,} tokens.")
    room = context or min(most, LONGEST)
    talk = Talk(made, checkpoint.tokenizer, _template(checkpoint.folder), _ends(checkpoint), room)
    talk.try_out()  # before a page opens
    return talk


def _ends(checkpoint: Checkpoint) -> list[int]:
    """The ids that end an answer, by generation_config.json where there is one, else by config.json."""
    file = checkpoint.folder / "generation_config.json"
    known = Config.read(file) if file.is_file() else {}
    end = known.get("eos_token_id", checkpoint.config.get("eos_token_id"))
    return list(end) if isinstance(end, list) else [] if end is None else [end]


def _template(folder: Path) -> str | None:
    file = folder / "chat_template.jinja"
    return file.read_text(encoding="utf-8") if file.is_file() else None


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
    )

    def refused(why: str) -> None:
        raise TemplateError(why)

    environment.globals["raise_exception"] = refused
    return environment
