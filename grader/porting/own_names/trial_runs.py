"""What names and shapes leave open, decided by running the program's modules on the reference's own inputs."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from grader.checks.probe.building import load_weights
from grader.layers.comparison import Comparison
from grader.layers.forms import form_of
from grader.layers.node import Node
from grader.layers.outcome import Outcome, outcome_of
from grader.names import layers_as_one
from grader.porting.own_names.alignment import Alignment
from grader.porting.own_names.paths import in_own_names
from grader.porting.own_names.questions import Answer, Question
from grader.porting.own_names.recipes import Recipe
from grader.porting.own_names.roles import BIASES, WEIGHTS

MOST_TRIED = 64
CLEARLY = 0.5  # an answer with which a module is wrong is taken if the error is at most this share of the first one's


def decided_by_running(model: nn.Module, alignment: Alignment) -> Alignment:
    """The alignment with its questions answered. The model's weights are changed.

    A question is asked of the smallest module that holds all its tensors of one layer. The likeliest answer stays,
    unless the module is wrong with it, and right with another. An answer that has to be asked for becomes a hint.
    """
    if not alignment.questions:
        return alignment
    with torch.no_grad():
        load_weights(model, alignment.weights())
        comparison = Comparison(model, in_own_names(model, alignment))
    groups: dict[str, list[Question]] = {}
    nodes: dict[str, Node] = {}
    for question in alignment.questions:
        node = _node_of(question, comparison)
        if node is not None:
            groups.setdefault(node.path, []).append(question)
            nodes[node.path] = node
    recipes, how, hints = dict(alignment.recipes), dict(alignment.how), list(alignment.hints)
    for path, questions in sorted(groups.items(), key=lambda item: -item[0].count(".")):
        chosen = _best(model, comparison, nodes[path], questions, replace(alignment, recipes=recipes))
        for question, answer in zip(questions, chosen, strict=True):
            if answer is question.answers[0]:
                continue
            if not question.free:
                hints.append(
                    f"`{path}` is right with another order of rows in {_listed(question.names)}: {answer.words}."
                    " If your loader brings them into that order, say --reordered; if it copies them as they are, this"
                    " is the error."
                )
                continue
            recipes = answer.applied(recipes)
            how |= dict.fromkeys(question.names, "running")
    return replace(alignment, recipes=recipes, how=how, hints=tuple(hints))


def _node_of(question: Question, comparison: Comparison) -> Node | None:
    """The first compared call of the smallest module that holds a question's tensors of one layer, and uses them."""
    first = question.names[0]
    layer = [n for n in question.names if _numbers(n)[:1] == _numbers(first)[:1]]
    around = layer[0].split(".")[:-1]
    for name in layer:
        parts = name.split(".")
        same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(around, parts, strict=False))
        around = [part for part, _ in same]
    ends = {tuple(name.lower().rsplit(".", 1)) for name in layer}
    if all(path == ".".join(around).lower() and leaf in WEIGHTS | BIASES for path, leaf in ends):
        around = around[:-1]  # one projection: the order of its rows shows only in what uses it
    while True:
        path = ".".join(around)
        node = next((n for n in comparison.nodes if n.path == path and n.alone is not None and _is_whole(n)), None)
        if node is not None or not around:
            return node
        around = around[:-1]


def _is_whole(node: Node) -> bool:
    """Whether a module is given all that the reference gives it; a program may take one token at a time."""
    given, right = node.given, node.recorded.input
    return given is None or right is None or given.numel() == right.numel()


def _numbers(name: str) -> list[int]:
    return [int(part) for part in name.split(".") if part.isdigit()]


def _best(
    model: nn.Module, comparison: Comparison, node: Node, questions: Sequence[Question], alignment: Alignment
) -> tuple[Answer, ...]:
    """The answers with which the module is right; the first ones if there are none."""
    first = tuple(question.answers[0] for question in questions)
    assert node.alone is not None
    if node.alone.ok:
        return first
    tried: list[tuple[Outcome, tuple[Answer, ...]]] = []
    combinations = sorted(itertools.product(*(q.answers for q in questions)), key=lambda a: _asked_for(questions, a))
    for answers in combinations[:MOST_TRIED]:
        outcome = _tried(model, comparison, node, answers, alignment)
        if outcome.ok:
            return answers
        tried.append((outcome, answers))
    load_weights(model, alignment.weights())
    free = [(o, a) for o, a in tried if not _asked_for(questions, a) and not o.raised and o.mean]
    nearest = min(free, key=lambda item: item[0].mean, default=None)
    if nearest and nearest[0].mean < CLEARLY * (node.alone.mean or 0):
        return nearest[1]
    inside = [(_right_inside(model, comparison, node, a, alignment), a) for a in (first, *(a for _, a in free))]
    load_weights(model, alignment.weights())
    most = max(inside, key=lambda item: item[0])
    return most[1] if most[0] > inside[0][0] else first


def _asked_for(questions: Sequence[Question], answers: Sequence[Answer]) -> int:
    """How many of the answers may not be taken without being asked for."""
    return sum(not q.free and a is not q.answers[0] for q, a in zip(questions, answers, strict=True))


def _tried(
    model: nn.Module, comparison: Comparison, node: Node, answers: Sequence[Answer], alignment: Alignment
) -> Outcome:
    recipes: Mapping[str, Recipe] = alignment.recipes
    for answer in answers:
        recipes = answer.applied(recipes)
    with torch.no_grad():
        load_weights(model, {name: recipe.make(alignment.trace.weights) for name, recipe in recipes.items()})
        return comparison.again(node)


def _right_inside(
    model: nn.Module, comparison: Comparison, node: Node, answers: tuple[Answer, ...], alignment: Alignment
) -> int:
    """How many of the modules and steps in a module that is wrong with every answer are right with these."""
    _tried(model, comparison, node, answers, alignment)
    with torch.no_grad():
        calls, _ = comparison.watched(lambda: node.call.again(node.right_input()))
    wanted = {n.path: n.recorded for n in reversed(comparison.nodes) if node in n.ancestors()}
    first = {call.path: call for call in reversed(calls) if call.path in wanted}
    pairs = [(call, wanted[path]) for path, call in first.items()]
    return sum(outcome_of(c.outputs, r, {}).ok or bool(form_of(c, c.outputs, r)) for c, r in pairs)


def _listed(names: Sequence[str]) -> str:
    return " and ".join(f"`{name}`" for name in layers_as_one(names))
