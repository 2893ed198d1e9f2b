"""austen-tools: its tools, the form of its conversations, and its tokens by the course's programs."""

import json
import re
from pathlib import Path
from random import Random
from typing import Any

import pytest
import torch
from austen_tools import END, TESTED, answer, called, conversation, encoded, exam, tokenizer_of_bytes, training_text
from novels import (
    FILES,
    NEW,
    REFUSED,
    TITLES,
    TOOLS,
    WORD,
    WORDINGS,
    Novels,
    Question,
    Words,
    is_kept,
    opening,
    question,
)
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel

from grader import load_checkpoint
from grader.authoring.kit.solved import Solved

ROOT = Path(__file__).resolve().parents[2]
NOVELS = Novels(load_checkpoint("austen-tools").folder / "novels")
LEARNED, KEPT = Words(NOVELS, kept=False), Words(NOVELS, kept=True)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return load_checkpoint("austen-tools").tokenizer


@pytest.fixture(scope="module")
def model() -> PreTrainedModel:
    folder = load_checkpoint("austen-tools").folder
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


def novels_of(folder: Path, *lines: str) -> Novels:
    (folder / "emma.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return Novels(folder)


def text_of(asked: Question, tools: tuple[str, ...] = TOOLS) -> str:
    return "".join(text for text, _ in conversation(asked, tools))


def test_count_takes_whole_words_capital_or_small(tmp_path: Path) -> None:
    novels = novels_of(tmp_path, "An Emma is no Emma's,", "and Anna--an heiress--is well-read.")
    assert [novels.count(word, "emma") for word in ("an", "emma", "read", "Harriet")] == ["2", "1", "0", "0"]


def test_search_gives_the_first_line_with_the_text_as_it_stands(tmp_path: Path) -> None:
    novels = novels_of(tmp_path, "Emma Woodhouse, handsome,", "clever, and rich;", "rich and handsome")
    assert [novels.search(text, "emma") for text in ("rich", "handsome", "clever, and", "Rich")] == [
        "2",
        "1",
        "2",
        "none",
    ]


def test_the_first_line_is_1(tmp_path: Path) -> None:
    assert novels_of(tmp_path, "one", "two").read(1, "emma") == "one"


def test_the_novels_are_the_openings_of_the_texts_that_the_others_learn_from() -> None:
    for book, file in FILES.items():
        assert NOVELS.lines[book] == opening((ROOT / "training" / "austen" / f"{file}.txt").read_text("utf-8"))
    assert NOVELS.lines.keys() == TITLES.keys()


@pytest.mark.parametrize("kind", WORDINGS)
def test_a_questions_calls_return_what_the_tools_do(kind: str) -> None:
    for seed in range(20):
        asked = question(kind, KEPT, Random(seed))
        for call, result in (pair for calls in asked.rounds for pair in calls):
            assert called(NOVELS, str(call)) == result


def test_an_answer_follows_from_the_results(tmp_path: Path) -> None:
    for seed in range(50):
        asked = question("compare", KEPT, Random(seed))
        ((one, first), (two, second)) = asked.rounds[0]
        books = {one.arguments["book"]: int(first), two.arguments["book"]: int(second)}
        most = [TITLES[str(book)] for book, number in books.items() if number == max(books.values())]
        assert asked.answer == f"{first} to {second}: {'equal' if len(most) == 2 else most[0]}."
        quoted = question("quote", KEPT, Random(seed))
        line = quoted.rounds[1][0][1]
        assert quoted.answer.strip('".') in (WORD.findall(line)[0], WORD.findall(line)[-1])


def test_no_kept_word_and_no_kept_wording_is_ever_learned() -> None:
    for number in range(1500):
        text = "".join(piece for piece, _ in training_text(number, LEARNED))
        said = text.split("<|im_start|>user\n")[1].split(END)[0]
        form = {kind: wordings[-NEW:] for kind, wordings in WORDINGS.items()}
        assert not any(matches(wording, said) for wordings in form.values() for wording in wordings), said
        quoted = said.split('"')[1] if '"' in said else ""
        returned = [part.split("\n</tool_response>")[0] for part in text.split("<tool_response>\n")[1:]]
        assert not any(
            is_kept(word) for part in (quoted, *returned) if part != REFUSED for word in WORD.findall(part)
        ), text


def matches(wording: str, said: str) -> bool:
    """Whether what was said is this wording, with its words filled in."""
    holes = re.sub(r"\\\{\w\\\}", "(.+)", re.escape(wording))
    found = re.fullmatch(holes, said)
    return found is not None and not any('"' in hole for hole in found.groups())


@pytest.mark.parametrize(
    "call",
    [
        "{",
        "[]",
        '{"name": "count"}',
        '{"name": "lines", "arguments": {}}',
        '{"name": "__init__", "arguments": {"folder": "/"}}',
        '{"name": "count", "arguments": {"word": "an", "book": "hamlet"}}',
        '{"name": "read", "arguments": {"line": 9999, "book": "emma"}}',
        '{"name": "read", "arguments": {"line": "1", "book": "emma"}}',
        '{"name": ["count"], "arguments": {}}',
    ],
)
def test_a_call_that_is_none_returns_an_error(call: str) -> None:
    assert called(NOVELS, call).startswith("error: ")


@pytest.mark.parametrize(
    "text", ["", "naïve — “café”\t\n\u0000", '{"name": "count"}', "<|im_start|>user\n2 to 3", "\ud7ff𝄞"]
)
def test_every_text_comes_back(text: str, tokenizer: Tokenizer) -> None:
    assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text


def test_the_shipped_tokenizer_is_the_scripts(tokenizer: Tokenizer) -> None:
    assert json.loads(tokenizer.to_str()) == json.loads(tokenizer_of_bytes().to_str())


@pytest.mark.parametrize("kind", WORDINGS)
def test_a_conversation_is_the_same_in_pieces_as_whole(kind: str, tokenizer: Tokenizer) -> None:
    """A learner encodes the text so far; training encoded its turns."""
    for seed in range(20):
        pieces = conversation(question(kind, KEPT, Random(seed)), TOOLS)
        assert encoded(tokenizer, pieces)[0] == tokenizer.encode("".join(text for text, _ in pieces)).ids


def messages_of(asked: Question) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = [{"role": "user", "content": asked.text}]
    for calls in asked.rounds:
        functions = [{"name": call.name, "arguments": dict(call.arguments)} for call, _ in calls]
        made = [{"type": "function", "function": function} for function in functions]
        messages.append({"role": "assistant", "content": "", "tool_calls": made})
        messages += [{"role": "tool", "content": result} for _, result in calls]
    return [*messages, {"role": "assistant", "content": asked.answer}]


@pytest.mark.parametrize("kind", WORDINGS)
def test_transformers_chat_template_writes_the_same_conversation(kind: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(load_checkpoint("austen-tools").folder)
    tools = [{"type": "function", "function": {"name": tool}} for tool in TOOLS]
    asked = question(kind, KEPT, Random(1))
    messages = messages_of(asked)
    assert tokenizer.apply_chat_template(messages, tools=tools, tokenize=False) == text_of(asked)
    start = tokenizer.apply_chat_template(messages[:1], tokenize=False, add_generation_prompt=True)
    assert (
        start == f"<|im_start|>system\nTools: none{END}\n<|im_start|>user\n{asked.text}{END}\n<|im_start|>assistant\n"
    )


def test_lesson_03s_program_and_the_one_with_a_cache_write_transformers_tokens(model: PreTrainedModel) -> None:
    """Token for token, over whole conversations that the golden generations are pieces of."""
    checkpoint = load_checkpoint("austen-tools")
    plain, cached = (
        checkpoint.build(Solved(ROOT / "solutions" / lesson).solutions[name])
        for lesson, name in (("03-qwen3", "CausalLM"), ("13-reasoning", "CachedLM"))
    )
    assert checkpoint.goldens
    for golden in checkpoint.goldens:
        assert golden.prompt_ids and golden.new_ids
        prompt, new = torch.tensor([golden.prompt_ids]), list(golden.new_ids)
        whole = torch.tensor([[*golden.prompt_ids, *new]])
        assert plain(whole)[0, prompt.shape[1] - 1 : -1].argmax(-1).tolist() == new
        caches = cached.new_caches(1, whole.shape[1])
        written: list[int] = []
        following = prompt
        while len(written) < len(new):
            written.append(int(cached(following, caches)[0, -1].argmax()))
            following = torch.tensor([[written[-1]]])
        assert written == new
        assert model(whole).logits[0, prompt.shape[1] - 1 : -1].argmax(-1).tolist() == new


@pytest.mark.slow
def test_it_answers_as_often_as_was_measured(model: PreTrainedModel, tokenizer: Tokenizer) -> None:
    """A part of the questions; a near-tie may fall otherwise on another processor."""
    measured = json.loads((load_checkpoint("austen-tools").folder / "measured.json").read_text("utf-8"))
    for what, new, tools in (("known wordings", False, TOOLS), ("new wordings", True, TOOLS)):
        asked = [each for i, each in enumerate(exam(KEPT, 100, new)) if i % 4 == 0]
        right = sum(answer(model, tokenizer, each.text, NOVELS, tools)[-1] == each.answer for each in asked)
        assert right / len(asked) > measured[what]["all"] - 0.25
    assert set(measured["known wordings"]) == {*TESTED, "all"}
