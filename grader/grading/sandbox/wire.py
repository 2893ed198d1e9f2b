"""What a task and a probe's observations look like in a message, and how much of a child's answer is believed.

The child runs submitted code, so its answer may be anything. What is not of the form that a probe gives is a
`FrameError`; names that were not asked for are left out; texts are cut to a length and cleaned. Only tensors
earn points, and only by being right. What a field of an observation may hold is told by its type.
"""

import dataclasses
import itertools
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from typing import Any, TypeVar, get_type_hints

from torch import Tensor

from grader.checks.observation import Fed, Observation, PartClass, PartKey, Problem, Replaced, Varied
from grader.grading.sandbox.frames import DTYPES, FrameError, Message, pack
from grader.recordings.codec import Decoder, Encoder
from grader.recordings.tasks import PartInput, PartOutput, Task
from grader.recordings.tensors import dtype_name

T = TypeVar("T")

GRADIENT_BYTES = 1 << 14  # at most: a few numbers for each of a case's gradients
MAX_TEXT = 400
MAX_LINES = 12
MAX_NAMES = 40
MAX_VARIANTS = 40  # of a case
MAX_CALLS = 64  # of one part in a pass
MAX_CLASS_NAME = 60
LENGTHS = {"kind": 20, "name": MAX_CLASS_NAME, "others": MAX_CLASS_NAME}  # of a text in a field; MAX_TEXT in any other
COUNTS = {"detail": MAX_LINES, "remarks": MAX_LINES}  # of texts in a field; MAX_NAMES in any other
_NOT_SHOWN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # control, direction, surrogates, nothing, ends of lines


def ask_probe(task: Task, limits: Sequence[int]) -> bytes:
    """The command to probe a task. limits: the bytes that each case's output may have."""
    return _ask("probe", task, limits=list(limits))


def ask_feed(task: Task, inputs: Sequence[Sequence[PartInput]]) -> bytes:
    """The command to feed a task's parts."""
    return _ask("feed", task, inputs)


def ask_replace(task: Task, outputs: Sequence[Sequence[PartOutput]]) -> bytes:
    """The command to replace a task's parts."""
    return _ask("replace", task, outputs)


def ask_classes(task: Task, solutions: Mapping[str, str]) -> bytes:
    """The command to say which classes a composite's parts have. solutions: see `parts.part_classes`."""
    return _ask("classes", task, solutions=dict(solutions))


def _ask(do: str, task: Task, parts: Sequence[Sequence[PartInput | PartOutput]] = (), **more: Any) -> bytes:
    encoder = Encoder()
    body = {"do": do, "task": encoder.encode(task), "parts": [[encoder.encode(p) for p in case] for case in parts]}
    return pack(body | more, encoder.tensors)


def asked(message: Message) -> Task:
    """The task in a command."""
    return Decoder(message.tensors).decode(Task, message.body["task"])


def asked_parts(message: Message, kind: type[T]) -> list[list[T]]:
    """What is to be fed to parts, PartInputs, or what they are to answer, PartOutputs."""
    decoder = Decoder(message.tensors)
    return [[decoder.decode(kind, part) for part in case] for case in message.body["parts"]]


class _Tensors:
    """Collects the tensors of an answer; one of a dtype that is not carried is left out."""

    def __init__(self) -> None:
        self.kept: dict[str, Tensor] = {}

    def keep(self, tensor: Tensor | None, limit: int | None = None) -> str | None:
        if tensor is None or dtype_name(tensor.dtype) not in DTYPES or (limit is not None and tensor.nbytes > limit):
            return None
        name = str(len(self.kept))
        self.kept[name] = tensor
        return name

    def encoded(self, value: Any, limits: Mapping[str, int | None] | None = None) -> dict[str, Any]:
        """The fields of a dataclass. limits: the bytes that the tensors in them may have."""

        def one(name: str, item: Any) -> Any:
            if isinstance(item, Tensor):
                return self.keep(item, (limits or {}).get(name))
            if name == "varied":
                return [self.encoded(varied, limits) for varied in item]
            return dataclasses.asdict(item) if isinstance(item, Problem) else item

        return {field.name: one(field.name, getattr(value, field.name)) for field in dataclasses.fields(value)}


def _limits(output: int | None) -> dict[str, int | None]:
    """The bytes of an observation's tensors, where its output may have so many."""
    return {"output": output, "again": output, "alone": output, "gradients": GRADIENT_BYTES}


def observed(observations: Sequence[Observation], limits: Sequence[int | None] = ()) -> bytes:
    """A child's answer to "probe". limits: the bytes that each case's output may have."""
    tensors = _Tensors()
    body = []
    for observation, limit in itertools.zip_longest(observations, limits[: len(observations)]):
        fields = tensors.encoded(observation, _limits(limit))
        if observation.problem is None and fields["output"] is None and observation.output is not None:
            fields["problem"] = dataclasses.asdict(Problem("type", _not_sent(observation.output)))
        body.append(fields)
    return pack(body, tensors.kept)


def _not_sent(output: Tensor) -> str:
    kind = dtype_name(output.dtype)
    if kind not in DTYPES:
        return f"the output is a tensor of {kind}, which no exercise asks for"
    return f"the output has shape {list(output.shape)} and dtype {kind}, and is far larger than a right one"


def read_observations(message: Message, task: Task, limits: Sequence[int]) -> tuple[Observation, ...]:
    """What a child says it observed, one for each of the task's cases at most. Raises FrameError.

    limits: the bytes that each case's output may have; a larger one is refused before it is made.
    """
    limit_of = {case.name: limit for case, limit in zip(task.cases, limits, strict=True)}
    found: dict[str, Observation] = {}
    for entry in _list(message.body)[: len(task.cases)]:
        case = _dict(entry).get("case")
        if not isinstance(case, str) or case not in limit_of:
            raise FrameError("an answer to a case that was not asked for")
        believed = _believed(Observation, entry, message, _limits(limit_of[case]))
        found.setdefault(case, dataclasses.replace(believed, case=case))  # as it was asked for, and not as it was cut
    return tuple(found.values())


def fed(results: Sequence[Mapping[PartKey, Fed]]) -> bytes:
    """A child's answer to "feed"."""
    tensors = _Tensors()
    return pack([[[*key, tensors.encoded(one)] for key, one in case.items()] for case in results], tensors.kept)


def read_fed(message: Message, keys: Sequence[Collection[PartKey]]) -> tuple[dict[PartKey, Fed], ...]:
    """What a child says its parts gave. keys: for each case, the parts that were fed. Raises FrameError."""
    results = []
    for case, wanted in _by_case(message.body, keys):
        entries = (_list(entry, 3) for entry in _list(case))
        results.append({_key(entry, wanted): _believed(Fed, entry[2], message) for entry in entries})
    return tuple(results)


def replaced(results: Sequence[Replaced]) -> bytes:
    """A child's answer to "replace"."""
    tensors = _Tensors()
    body = [
        [
            tensors.keep(one.output),
            [[*key, tensors.keep(tensor)] for key, tensor in one.given.items() if key[1] < MAX_CALLS],
            one.present,
            one.used,
        ]
        for one in results
    ]
    return pack(body, tensors.kept)


def read_replaced(message: Message, keys: Sequence[Collection[PartKey]]) -> tuple[Replaced, ...]:
    """What a child says its composite gave, its parts were given, and which it has. Raises FrameError.

    Which parts it has decides about words alone: points for wiring need every part's input to be right.
    """
    results = []
    for case, wanted in _by_case(message.body, keys):
        output, entries, claimed, taken = _list(case, 4)
        paths = list(dict.fromkeys(path for path, _ in wanted))
        calls = {(path, index) for path in paths for index in range(MAX_CALLS)}  # a part may be called more often
        known = [entry for entry in (_list(e, 3) for e in _list(entries)) if _is_key(entry, calls)]
        given = {_key(entry, calls): _tensor(message, entry[2]) for entry in known}
        present, used = (tuple(path for path in paths if path in _list(said)) for said in (claimed, taken))
        results.append(Replaced(_tensor(message, output), given, present, used))
    return tuple(results)


def classes(found: Mapping[str, PartClass]) -> bytes:
    """A child's answer to "classes"."""
    return pack([[path, dataclasses.asdict(kind)] for path, kind in found.items()])


def read_classes(message: Message, paths: Collection[str]) -> dict[str, PartClass]:
    """What a child says of its parts' classes. paths: the reference's parts. Raises FrameError."""
    entries = (_list(entry, 2) for entry in _list(message.body))
    return {
        path: _believed(PartClass, kind, message) for path, kind in entries if isinstance(path, str) and path in paths
    }


def ran(problem: Problem | None) -> bytes:
    """A child's answer to "cell": what stopped it."""
    return pack(dataclasses.asdict(problem) if problem else None)


def read_ran(message: Message) -> Problem | None:
    """What a child says of a cell. Raises FrameError."""
    return None if message.body is None else _believed(Problem, message.body, message)


def read_needed(message: Message, free: Sequence[int]) -> tuple[int, ...]:
    """Which of the free cells a child finds needed. Raises FrameError."""
    found = _list(message.body)
    return tuple(index for index in free if index in found)


def clean(text: Any, length: int = MAX_TEXT) -> str:
    """A text from a child, in one line, without what does not print, and no longer than `length`."""
    if not isinstance(text, str):
        raise FrameError("a text that is none")
    printable = (" " if unicodedata.category(c) in _NOT_SHOWN else c for c in text[: 4 * length])
    line = "".join(printable).rstrip()
    return line if len(line) <= length else line[: length - 3] + "..."


def _by_case(body: Any, keys: Sequence[Collection[PartKey]]) -> list[tuple[Any, Collection[PartKey]]]:
    return list(zip(_list(body, len(keys)), keys, strict=True))


def _is_key(entry: list[Any], wanted: Collection[PartKey]) -> bool:
    path, index = entry[:2]
    return isinstance(path, str) and type(index) is int and (path, index) in wanted


def _key(entry: list[Any], wanted: Collection[PartKey]) -> PartKey:
    if not _is_key(entry, wanted):
        raise FrameError("an answer about a part that was not asked for")
    return entry[0], entry[1]


@cache
def _types(kind: type) -> dict[str, Any]:
    return get_type_hints(kind)


def _believed(kind: type[T], entry: Any, message: Message, limits: Mapping[str, int | None] | None = None) -> T:
    """An object of a dataclass from what a child says its fields hold. Raises FrameError for what no field can hold.

    limits: the bytes that the tensors in them may have. What else `entry` holds is left out.
    """
    said = _dict(entry)
    found: dict[str, Any] = {}
    for name, type_ in _types(kind).items():  # type: ignore[arg-type]  # mypy takes no class for hashable
        value = said.get(name)
        length = LENGTHS.get(name, MAX_TEXT)
        if type_ == Tensor | None:
            found[name] = _tensor(message, value, (limits or {}).get(name))
        elif type_ == Problem | None:
            found[name] = None if value is None else _believed(Problem, value, message)
        elif type_ == tuple[str, ...]:
            texts = _list(said.get(name, []))[: COUNTS.get(name, MAX_NAMES)]
            found[name] = tuple(clean(text, length) for text in texts)
        elif type_ == tuple[Varied, ...]:
            entries = _list(said.get(name, []))[:MAX_VARIANTS]
            found[name] = tuple(_believed(Varied, one, message, limits) for one in entries)
        elif type_ is bool:
            found[name] = value is True
        elif type_ is str or value is not None:
            found[name] = clean(value, length)
        else:
            found[name] = None
    return kind(**found)


def _tensor(message: Message, name: Any, limit: int | None = None) -> Tensor | None:
    if name is None:
        return None
    if not isinstance(name, str) or name not in message.tensors:
        raise FrameError("an answer that names a tensor which is not there")
    if limit is not None and message.size(name) > limit:
        raise FrameError("a tensor that is far larger than a right one")
    return message.tensors[name]


def _list(value: Any, length: int | None = None) -> list[Any]:
    if not isinstance(value, list) or (length is not None and len(value) != length):
        raise FrameError("a list was expected")
    return value


def _dict(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise FrameError("an object was expected")
    return value
