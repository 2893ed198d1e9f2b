"""What a task and a probe's observations look like in a message, and how much of a child's answer is believed.

The child runs submitted code, so its answer may be anything. What is not of the form that a probe gives is a
`FrameError`; names that were not asked for are left out; texts are cut to a length and cleaned. Only tensors
earn points, and only by being right.
"""

import dataclasses
import itertools
import unicodedata
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from torch import Tensor

from grader.checks.observation import Fed, Observation, PartClass, PartKey, Problem, Replaced
from grader.grading.frames import DTYPES, FrameError, Message, pack
from grader.recordings.answers import Answer
from grader.recordings.builder import Builder
from grader.recordings.recording import Recording
from grader.recordings.tasks import PartInput, PartOutput, Task
from grader.recordings.tensors import dtype_name

ROOM, LEAST_ROOM = 4, 4096  # how many times a right answer's bytes another may have, and how many in any case
ROOM_FOR_GRADIENTS = 1 << 14  # bytes: a few numbers for each of a case's gradients
MAX_TEXT = 400
MAX_LINES = 12
MAX_NAMES = 40
MAX_CALLS = 64  # of one part in a pass
MAX_CLASS_NAME = 60
_NOT_SHOWN = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"}  # control, direction, surrogates, nothing, ends of lines


def room_for(answer: Answer) -> list[int]:
    """The bytes that each case's output may have: a few times what the right one takes, or a known mistake's."""
    return [
        ROOM * max(want.nbytes, *(mistake.outputs[i].nbytes for mistake in answer.mistakes), 0) + LEAST_ROOM
        for i, want in enumerate(answer.outputs)
    ]


def room_for_parts(answer: Answer) -> int:
    """The bytes that a composite's output in every case, and all that its parts are given or give, may have."""
    tensors = [t for calls in answer.part_calls for call in calls for t in (call.input, call.output) if t is not None]
    return ROOM * sum(tensor.nbytes for tensor in tensors) + sum(room_for(answer))


def ask_probe(task: Task, answer: Answer) -> bytes:
    """The command to probe a task. Of the answer it tells how many bytes an output may have."""
    builder = Builder()
    body = {"do": "probe", "exercise": task.exercise, "task": builder.task(task), "room": room_for(answer)}
    return pack(body, builder.tensors)


def ask(do: str, task: Task, parts: Sequence[Sequence[PartInput]] | Sequence[Sequence[PartOutput]] = ()) -> bytes:
    """The command to probe a task, or to feed or replace its parts."""
    builder = Builder()
    body: dict[str, Any] = {"do": do, "exercise": task.exercise, "task": builder.task(task)}
    body["parts"] = [[_encoded_part(part, builder) for part in case] for case in parts]
    return pack(body, builder.tensors)


def _encoded_part(part: PartInput | PartOutput, builder: Builder) -> dict[str, Any]:
    fields = {field.name: getattr(part, field.name) for field in dataclasses.fields(part)}
    return {name: builder.tensor(v) if isinstance(v, Tensor) else v for name, v in fields.items()}


def asked(message: Message) -> Task:
    """The task in a command."""
    name = message.body["exercise"]
    return Recording({"exercises": {name: message.body["task"]}}, dict(message.tensors)).task(name)


def asked_inputs(message: Message) -> list[list[PartInput]]:
    """What is to be fed to parts."""
    tensors = message.tensors
    return [[PartInput(p["path"], p["index"], tensors[p["input"]]) for p in case] for case in message.body["parts"]]


def asked_outputs(message: Message) -> list[list[PartOutput]]:
    """What parts are to answer."""
    return [
        [PartOutput(p["path"], p["index"], tuple(p["input_shape"]), message.tensors[p["output"]]) for p in case]
        for case in message.body["parts"]
    ]


def _encoded_problem(problem: Problem | None) -> dict[str, Any] | None:
    return None if problem is None else dataclasses.asdict(problem)


class _Tensors:
    """Collects the tensors of an answer; one of a dtype that is not carried is left out."""

    def __init__(self) -> None:
        self.kept: dict[str, Tensor] = {}

    def keep(self, tensor: Tensor | None, room: int | None = None) -> str | None:
        if tensor is None or dtype_name(tensor.dtype) not in DTYPES or (room is not None and tensor.nbytes > room):
            return None
        name = str(len(self.kept))
        self.kept[name] = tensor
        return name


def observed(observations: Sequence[Observation], rooms: Sequence[int | None] = ()) -> bytes:
    """A child's answer to "probe". rooms: the bytes that each case's output may have."""
    tensors = _Tensors()
    body = []
    for observation, room in itertools.zip_longest(observations, rooms[: len(observations)]):
        fields = {field.name: getattr(observation, field.name) for field in dataclasses.fields(observation)}
        fields["output"] = tensors.keep(observation.output, room)
        fields["again"] = tensors.keep(observation.again, room)
        fields["gradients"] = tensors.keep(observation.gradients, ROOM_FOR_GRADIENTS)
        problem = observation.problem
        if problem is None and fields["output"] is None and observation.output is not None:
            problem = Problem("type", _not_sent(observation.output))
        fields["problem"] = _encoded_problem(problem)
        fields["backward"] = _encoded_problem(observation.backward)
        body.append(fields)
    return pack(body, tensors.kept)


def _not_sent(output: Tensor) -> str:
    kind = dtype_name(output.dtype)
    if kind not in DTYPES:
        return f"the output is a tensor of {kind}, which no exercise asks for"
    return f"the output has shape {list(output.shape)} and dtype {kind}, and is far larger than a right one"


def read_observations(message: Message, task: Task, rooms: Sequence[int]) -> tuple[Observation, ...]:
    """What a child says it observed, one for each of the task's cases at most. Raises FrameError.

    rooms: the bytes that each case's output may have; a larger one is refused before it is made.
    """
    room_of = {case.name: room for case, room in zip(task.cases, rooms, strict=True)}
    found: dict[str, Observation] = {}
    for entry in _list(message.body)[: len(task.cases)]:
        entry = _dict(entry)
        case = entry.get("case")
        if not isinstance(case, str) or case not in room_of:
            raise FrameError("an answer to a case that was not asked for")
        position = entry.get("changed_input")
        found.setdefault(
            case,
            Observation(
                case,
                _tensor(message, entry.get("output"), room_of[case]),
                _problem(entry.get("problem")),
                _tensor(message, entry.get("again"), room_of[case]),
                position if type(position) is int and 0 <= position < MAX_NAMES else None,
                tuple(clean(name) for name in _list(entry.get("no_gradient", []))[:MAX_NAMES]),
                _problem(entry.get("backward")),
                clean(entry["first_nan"]) if entry.get("first_nan") is not None else None,
                tuple(clean(remark) for remark in _list(entry.get("remarks", []))[:MAX_LINES]),
                _tensor(message, entry.get("gradients"), ROOM_FOR_GRADIENTS),
            ),
        )
    return tuple(found.values())


def fed(results: Sequence[Mapping[PartKey, Fed]]) -> bytes:
    """A child's answer to "feed"."""
    tensors = _Tensors()
    body = [
        [
            [*key, tensors.keep(one.output), _encoded_problem(one.problem), one.changed_input, one.others]
            for key, one in case.items()
        ]
        for case in results
    ]
    return pack(body, tensors.kept)


def read_fed(message: Message, keys: Sequence[Collection[PartKey]]) -> tuple[dict[PartKey, Fed], ...]:
    """What a child says its parts gave. keys: for each case, the parts that were fed. Raises FrameError."""
    results = []
    for case, wanted in _by_case(message.body, keys):
        entries = (_list(entry, 6) for entry in _list(case))
        results.append({_key(e, wanted): _one_fed(message, e) for e in entries})
    return tuple(results)


def _one_fed(message: Message, entry: list[Any]) -> Fed:
    others = tuple(clean(name, MAX_CLASS_NAME) for name in _list(entry[5])[:MAX_NAMES])
    return Fed(_tensor(message, entry[2]), _problem(entry[3]), entry[4] is True, others)


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


def ask_classes(task: Task, solutions: Mapping[str, str]) -> bytes:
    """The command to say which classes a composite's parts have. solutions: see `parts.part_classes`."""
    builder = Builder()
    body = {"do": "classes", "exercise": task.exercise, "task": builder.task(task), "solutions": dict(solutions)}
    return pack(body, builder.tensors)


def classes(found: Mapping[str, PartClass]) -> bytes:
    """A child's answer to "classes"."""
    return pack([[path, kind.name, kind.own, kind.library] for path, kind in found.items()])


def read_classes(message: Message, paths: Collection[str]) -> dict[str, PartClass]:
    """What a child says of its parts' classes. paths: the reference's parts. Raises FrameError."""
    entries = (_list(entry, 4) for entry in _list(message.body))
    return {
        path: PartClass(clean(name, MAX_CLASS_NAME), own is True, library is True)
        for path, name, own, library in entries
        if isinstance(path, str) and path in paths
    }


def ran(problem: Problem | None) -> bytes:
    """A child's answer to "cell": what stopped it."""
    return pack(_encoded_problem(problem))


def read_ran(message: Message) -> Problem | None:
    """What a child says of a cell. Raises FrameError."""
    return _problem(message.body)


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


def _problem(entry: Any) -> Problem | None:
    if entry is None:
        return None
    entry = _dict(entry)
    detail = tuple(clean(line) for line in _list(entry.get("detail", []))[:MAX_LINES])
    return Problem(clean(entry.get("kind"), 20), clean(entry.get("message")), detail)


def _tensor(message: Message, name: Any, room: int | None = None) -> Tensor | None:
    if name is None:
        return None
    if not isinstance(name, str) or name not in message.tensors:
        raise FrameError("an answer that names a tensor which is not there")
    if room is not None and message.size(name) > room:
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
