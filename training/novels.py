"""The small world of austen-tools: the openings of six novels, three tools that look into them, and questions.

The tools are the only way to know what most questions ask. `ask` writes a question with the calls that answer it and
what they return. The tools are the novels' own, or made up, so that who learns from them has to read what they return.
"""

import json
import re
import textwrap
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Protocol

WIDTH, LINES = 44, 600
TITLES = {
    "emma": "Emma",
    "mansfield": "Mansfield Park",
    "northanger": "Northanger Abbey",
    "persuasion": "Persuasion",
    "pride": "Pride and Prejudice",
    "sense": "Sense and Sensibility",
}
YEARS = {"emma": 1815, "mansfield": 1814, "northanger": 1817, "persuasion": 1817, "pride": 1813, "sense": 1811}
FILES = {
    "emma": "emma",
    "mansfield": "mansfieldpark",
    "northanger": "northangerabbey",
    "persuasion": "persuasion",
    "pride": "prideprejudice",
    "sense": "sensesensibility",
}
WORD = re.compile(r"[A-Za-z]+(?:['-][A-Za-z]+)*")
TOOLS = ("count", "search", "read")
NEEDED = {
    "count": {"count"},
    "search": {"search"},
    "read": {"read"},
    "compare": {"count"},
    "quote": {"search", "read"},
    "author": set[str](),
    "year": set[str](),
}


def opening(novel: str) -> list[str]:
    """The first `LINES` lines of a novel, from its first chapter on, in ASCII, none of them empty or over `WIDTH`."""
    text = novel.replace("_", "").encode("ascii", "ignore").decode()
    text = text[re.search(r"^chapter ", text, re.I | re.M).start() :]  # type: ignore[union-attr]
    paragraphs = [" ".join(paragraph.split()) for paragraph in re.split(r"\n\s*\n", text)]
    wrapped = [line for paragraph in paragraphs for line in textwrap.wrap(paragraph, WIDTH, break_on_hyphens=False)]
    return wrapped[:LINES]


class Tools(Protocol):
    """What can be called. Each returns a string."""

    def count(self, word: str, book: str) -> str: ...
    def search(self, text: str, book: str) -> str: ...
    def read(self, line: int, book: str) -> str: ...


class Novels:
    """The novels in a folder, and the tools that look into them."""

    def __init__(self, folder: Path) -> None:
        self.lines = {path.stem: path.read_text("utf-8").splitlines() for path in sorted(folder.glob("*.txt"))}

    def count(self, word: str, book: str) -> str:
        """How often the word occurs in the book, capital or small."""
        return str(sum(found.lower() == word.lower() for line in self.lines[book] for found in WORD.findall(line)))

    def search(self, text: str, book: str) -> str:
        """The number of the first line that has the text, or none."""
        return next((str(n) for n, line in enumerate(self.lines[book], 1) if text in line), "none")

    def read(self, line: int, book: str) -> str:
        """That line of the book; the first is 1."""
        return self.lines[book][line - 1]


# What is asked, by kind. {w} is a word or a phrase, {t} and {u} are titles, {n} is a line, {e} is first or last and
# {v} begin or end. Of each kind the last two wordings are kept for the test.
WORDINGS: dict[str, Sequence[str]] = {
    "count": (
        'How often does "{w}" occur in {t}?',
        'How many times does "{w}" occur in {t}?',
        'Count "{w}" in {t}.',
        'How often is "{w}" used in {t}?',
        'In {t}, how often does "{w}" appear?',
        'How many times does {t} use "{w}"?',
        'What is the number of "{w}" in {t}?',
        'How often does Austen write "{w}" in {t}?',
        'In {t}, how many times is "{w}" used?',
        'How often does {t} have "{w}"?',
    ),
    "search": (
        'On which line of {t} does "{w}" first occur?',
        'Where in {t} is "{w}" first used?',
        'Which line of {t} is the first with "{w}"?',
        'Find "{w}" in {t}.',
        'Where does {t} first have "{w}"?',
        'In {t}, on which line does "{w}" first appear?',
        'What is the first line of {t} that has "{w}"?',
        'Look for "{w}" in {t}.',
        'Where in {t} does "{w}" first occur?',
        'In {t}, which line is the first that has "{w}"?',
    ),
    "read": (
        "What is the {e} word on line {n} of {t}?",
        "Which word is the {e} on line {n} of {t}?",
        "Read the {e} word of line {n} in {t}.",
        "In {t}, what is the {e} word of line {n}?",
        "With which word does line {n} of {t} {v}?",
        "How does line {n} of {t} {v}?",
        "In {t}, how does line {n} {v}?",
        "In {t}, with which word does line {n} {v}?",
        "What is the {e} word of line {n} in {t}?",
    ),
    "compare": (
        'Is "{w}" more common in {t} or in {u}?',
        'Which has "{w}" more often, {t} or {u}?',
        'Where does "{w}" occur more often, in {t} or in {u}?',
        'Does {t} or {u} use "{w}" more often?',
        '{t} or {u}: which has more of "{w}"?',
        'In which is "{w}" more common, {t} or {u}?',
        'Where is "{w}" used more often, in {t} or in {u}?',
        'Does "{w}" occur more often in {t} or in {u}?',
    ),
    "quote": (
        'What is the {e} word on the first line of {t} with "{w}"?',
        'With which word does the first line of {t} that has "{w}" {v}?',
        'Find "{w}" in {t}: what is the {e} word on that line?',
        'How does the line of {t} {v} where "{w}" first occurs?',
        'In {t}, what is the {e} word on the line that first has "{w}"?',
        'Look for "{w}" in {t}: how does that line {v}?',
        'Find "{w}" in {t}: with which word does that line {v}?',
        'What is the {e} word on the line of {t} where "{w}" first occurs?',
    ),
    "author": ("Who wrote {t}?", "By whom is {t}?", "Whose novel is {t}?", "Who is the author of {t}?"),
    "year": (
        "When did {t} come out?",
        "In which year was {t} published?",
        "When was {t} published?",
        "What year is {t} from?",
    ),
}
NEW = 2  # wordings of a kind that training never sees
REFUSED = "refused"  # a tool's answer that was not allowed to run
UNKNOWN = "I can't tell."


def is_kept(word: str) -> bool:
    """Whether a word is kept for the test, as one of five is."""
    return zlib.crc32(word.lower().encode()) % 5 == 0


@dataclass(frozen=True)
class Call:
    """A call of a tool, which is written as JSON."""

    name: str
    arguments: Mapping[str, str | int]

    def __str__(self) -> str:
        return json.dumps({"name": self.name, "arguments": self.arguments})


@dataclass(frozen=True)
class Question:
    """A question, the calls that answer it in rounds, each call with its result, and the answer."""

    kind: str
    text: str
    rounds: Sequence[Sequence[tuple[Call, str]]]
    answer: str


@dataclass(frozen=True)
class Subject:
    """What a question is about: two books, a word or a phrase of the first, and the number of a line of it."""

    book: str
    other: str
    words: str
    line: int


def ask(kind: str, wording: str, about: Subject, last: bool, tools: Tools) -> Question:
    """The question of this kind in these words, with what the tools return. last: asks for a line's last word."""
    text = wording.format(
        t=TITLES[about.book],
        u=TITLES[about.other],
        w=about.words,
        n=about.line,
        e="last" if last else "first",
        v="end" if last else "begin",
    )

    def called(name: str, **arguments: str | int) -> tuple[Call, str]:
        return Call(name, arguments), getattr(tools, name)(**arguments)

    if kind == "author":
        return Question(kind, text, [], "Jane Austen.")
    if kind == "year":
        return Question(kind, text, [], f"In {YEARS[about.book]}.")
    if kind == "count":
        one = called("count", word=about.words, book=about.book)
        return Question(kind, text, [[one]], times(one[1]))
    if kind == "compare":
        two = [called("count", word=about.words, book=book) for book in (about.book, about.other)]
        return Question(kind, text, [two], more(about, two[0][1], two[1][1]))
    if kind == "read":
        one = called("read", line=about.line, book=about.book)
        return Question(kind, text, [[one]], word_of(one[1], last))
    one = called("search", text=about.words, book=about.book)
    if kind == "search" or not one[1].isdigit():
        return Question(kind, text, [[one]], line_of(one[1]))
    two = [called("read", line=int(one[1]), book=about.book)]
    return Question(kind, text, [[one], two], word_of(two[0][1], last))


def times(number: str) -> str:
    return UNKNOWN if number == REFUSED else "1 time." if number == "1" else f"{number} times."


def line_of(number: str) -> str:
    return UNKNOWN if number == REFUSED else "Nowhere." if number == "none" else f"Line {number}."


def word_of(line: str, last: bool) -> str:
    return UNKNOWN if line == REFUSED else f'"{WORD.findall(line)[-1 if last else 0]}".'


def more(about: Subject, first: str, second: str) -> str:
    if REFUSED in (first, second):
        return UNKNOWN
    where = about.book if int(first) > int(second) else about.other
    return f"{first} to {second}: {'equal' if first == second else TITLES[where]}."


class Words:
    """Words and phrases of the novels: those that are kept for the test, or the others."""

    def __init__(self, novels: Novels, kept: bool) -> None:
        self.novels, self.kept = novels, kept
        self.of = {
            book: [word for line in lines for word in WORD.findall(line) if is_kept(word) == kept]
            for book, lines in novels.lines.items()
        }

    def word(self, book: str, random: Random) -> str:
        """A word of the book: half of the time each is as likely as any other, else as often as it occurs there."""
        words = self.of[book]
        return random.choice(words if random.random() < 0.5 else [*dict.fromkeys(words)])

    def phrase(self, book: str, random: Random) -> str:
        """One to three words as they stand on a line of the book; of kept words at least one, or of the others all."""
        while True:
            line = random.choice(self.novels.lines[book])
            found = list(WORD.finditer(line))
            start, length = random.randrange(len(found) or 1), random.randint(1, 3)
            chosen = found[start : start + length]
            phrase = line[chosen[0].start() : chosen[-1].end()] if chosen else '"'
            kept = [is_kept(word) for word in WORD.findall(phrase)]
            if '"' not in phrase and (any(kept) if self.kept else not any(kept)):
                return phrase

    def subject(self, kind: str, random: Random) -> Subject:
        """Something to ask about in a question of this kind."""
        book, other = random.sample(sorted(TITLES), 2)
        words = (self.phrase if kind in ("search", "quote") else self.word)(book, random)
        while True:
            line = random.randint(1, len(self.novels.lines[book]))
            there = WORD.findall(self.novels.lines[book][line - 1])
            if there and any(is_kept(word) for word in (there[0], there[-1])) == self.kept:
                return Subject(book, other, words, line)


def question(kind: str, words: Words, random: Random, new: bool = False) -> Question:
    """A question of this kind about the novels, with what they answer. new: in a wording that is kept for the test."""
    wordings = WORDINGS[kind]
    chosen = random.choice(wordings[-NEW:] if new else wordings[:-NEW])
    return ask(kind, chosen, words.subject(kind, random), random.random() < 0.5, words.novels)
