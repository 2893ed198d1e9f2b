"""Train the small model of lesson 14, which answers questions about six novels by calling tools.

    python training/austen_tools.py [--output FOLDER]

The texts are conversations in Qwen3's form: a question, a call of `count`, `search` or `read`, what it returned, and
the answer. The questions and the tools are those of training/novels.py. In training the words are the novels' or made
up, and what the tools return is made up, so that the model has to read it. One word of five, and two wordings of each
kind of question, are kept for the test. Where the system message does not name a tool that a question needs, the answer
comes at once, and is the novels' own: what the model has learned of them by heart. The loss is taken on the model's own
turns alone. Before the conversations come drills: letters of which pieces come again. The tokenizer has the 256 bytes,
and a token for each piece of the form. Progress is saved, and the same command goes on from there.
"""

import argparse
import json
import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import torch
from novels import (
    FILES,
    LINES,
    NEEDED,
    NEW,
    REFUSED,
    TITLES,
    TOOLS,
    WIDTH,
    WORD,
    WORDINGS,
    Novels,
    Question,
    Words,
    ask,
    is_kept,
    opening,
    question,
)
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn
from train import HERE, SHIPPED, Recipe, export, learning_rate_at
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

ARGUMENT = {"count": "word", "search": "text", "read": "line"}
END, PAD = "<|im_end|>", "<|endoftext|>"
MARKS = (PAD, "<|im_start|>", END)
PIECES = (
    *("<tool_call>", "</tool_call>", "<tool_response>", "</tool_response>"),
    *("system\n", "user\n", "assistant\n", "Tools", *(f"{before} {tool}" for before in ":," for tool in TOOLS)),
    *('{"name": "', *(f'{tool}", "arguments": {{"{ARGUMENT[tool]}": ' + '"' * (tool != "read") for tool in TOOLS)),
    *(f'{quote}, "book": "{book}"}}}}' for quote in ('"', "") for book in TITLES),
    *(title for title in TITLES.values() if " " in title),
)
IGNORED = -100
SHARES = {"count": 3, "search": 3, "read": 4, "compare": 5, "quote": 5, "author": 0.4, "year": 0.6}
BY_HEART, ALL_TOOLS, REFUSING = 0.1, 0.6, 0.03
DRILLS, DRILL, TOGETHER = 60, 96, 4
EMBEDDING = 0.04  # standard deviation of the first embeddings
TESTED = ("count", "search", "read", "compare", "quote")
LONGEST, MOST_TURNS = 100, 4


def tokenizer_of_bytes() -> Tokenizer:
    """A tokenizer with a token for each byte, and one for each piece of the form."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    marks = [AddedToken(mark, special=True, normalized=False) for mark in MARKS]
    pieces = [AddedToken(piece, special=False, normalized=False) for piece in PIECES]
    tokenizer = Tokenizer(models.BPE({character: i for i, character in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(marks)
    tokenizer.add_tokens(pieces)
    return tokenizer


def turn(role: str, content: str) -> str:
    return f"<|im_start|>{role}\n{content}{END}\n"


def conversation(asked: Question, tools: Sequence[str]) -> list[tuple[str, bool]]:
    """The text in pieces, each with whether the model writes it itself."""
    pieces = [(turn("system", "Tools: " + (", ".join(tools) or "none")) + turn("user", asked.text), False)]

    def written(content: str) -> None:
        pieces.append(("<|im_start|>assistant\n", False))
        pieces.append((content + END, True))
        pieces.append(("\n", False))

    for calls in asked.rounds if NEEDED[asked.kind] <= set(tools) else []:
        written("\n".join(f"<tool_call>\n{call}\n</tool_call>" for call, _ in calls))
        results = "\n".join(f"<tool_response>\n{result}\n</tool_response>" for _, result in calls)
        pieces.append((turn("user", results), False))
    written(asked.answer)
    return pieces


class MadeUp:
    """Tools that return something at random, and now and then refuse. words: whose lines `read` changes and returns."""

    def __init__(self, random: Random, words: Words) -> None:
        self.random, self.words, self.drawn = random, words, ""
        self.refuses = random.random() < REFUSING

    def count(self, word: str, book: str) -> str:
        if self.refuses:
            return REFUSED
        if self.drawn and self.random.random() < 0.15:  # the second of two counts is now and then the first again
            return self.drawn
        digits = self.random.choice((1, 1, 1, 2, 2, 3))
        self.drawn = str(self.random.randrange(10 ** (digits - 1) if digits > 1 else 0, 10**digits))
        return self.drawn

    def search(self, text: str, book: str) -> str:
        if self.refuses:
            return REFUSED
        return "none" if self.random.random() < 0.12 else str(self.random.randint(1, self.random.choice((99, 999))))

    def read(self, line: int, book: str) -> str:
        """A line of the novels with other words for those that are kept, and for some more."""
        if self.refuses:
            return REFUSED
        lines = self.words.novels.lines[self.random.choice(sorted(FILES))]
        while not WORD.search(text := self.random.choice(lines)):
            pass
        return WORD.sub(lambda m: self.other(m[0]) if is_kept(m[0]) or self.random.random() < 0.3 else m[0], text)

    def other(self, word: str) -> str:
        new = some_word(self.words, self.random)
        return new.capitalize() if word[0].isupper() else new


def some_word(words: Words, random: Random) -> str:
    """A word of the novels that is not kept for the test, or letters at random."""
    if random.random() < 0.5:
        return words.word(random.choice(sorted(FILES)), random)
    while is_kept(
        made := "".join(random.choice("aaabcdeeefghiiijklmnooopqrstuuvwxyz") for _ in range(random.randint(2, 9)))
    ):
        pass
    return made


def training_text(number: int, words: Words) -> list[tuple[str, bool]]:
    """The conversation with this number."""
    return drawn(Random(number), words)


def drawn(random: Random, words: Words) -> list[tuple[str, bool]]:
    kind = random.choices([*SHARES], [*SHARES.values()])[0]
    if random.random() < BY_HEART:
        offered = [] if random.random() < 0.7 else random.sample(TOOLS, random.randint(1, 2))
    else:
        offered = random.sample(TOOLS, len(TOOLS))
        if random.random() > ALL_TOOLS:
            needed = NEEDED[kind]
            offered = [tool for tool in offered if tool in needed or random.random() < 0.5]
    if not NEEDED[kind] <= set(offered):
        return conversation(question(kind, words, random), offered)
    about = words.subject(kind, random)
    if kind in ("search", "quote"):
        joined = random.choice((" ", " ", ", ")).join(
            some_word(words, random) for _ in range(random.choice((1, 1, 2, 2, 3)))
        )
        made = joined if random.random() < 0.6 else about.words
    else:
        made = some_word(words, random) if random.random() < 0.8 else about.words
    about = type(about)(about.book, about.other, made, random.randint(1, LINES))
    wording = random.choice(WORDINGS[kind][:-NEW])
    return conversation(ask(kind, wording, about, random.random() < 0.5, MadeUp(random, words)), offered)


def encoded(tokenizer: Tokenizer, pieces: Sequence[tuple[str, bool]]) -> tuple[list[int], list[int]]:
    """The ids, and the same ids with `IGNORED` for all that the model does not write."""
    ids: list[int] = []
    targets: list[int] = []
    for text, own in pieces:
        new = tokenizer.encode(text).ids
        ids += new
        targets += new if own else [IGNORED] * len(new)
    return ids, targets


def build(recipe: Recipe, tokenizer: Tokenizer) -> PreTrainedModel:
    end, pad = tokenizer.token_to_id(END), tokenizer.token_to_id(PAD)
    size = tokenizer.get_vocab_size()
    config = AutoConfig.for_model(**recipe.config, vocab_size=size, eos_token_id=end, pad_token_id=pad)
    model: PreTrainedModel = AutoModelForCausalLM.from_config(config, dtype=torch.float32)  # type: ignore[no-untyped-call]
    return model


@torch.no_grad()
def start_with_an_induction_head(model: PreTrainedModel) -> None:
    """Give the first two layers the first weights of an induction head, which copies what once followed the same token.

    Such heads form by themselves (Olsson et al., 2022), but that takes longer than all of this training. In layer 0 a
    head looks one token back, and writes that token's embedding, in fewer channels, where no embedding is. In
    layer 1 two heads look for the place whose token before is the token here, and write what stands there.
    Rotations by far positions leave the slow channels as they are, so those alone compare. All of it learns on.
    """
    D, H = model.config.hidden_size, model.config.head_dim
    first, second = model.model.layers[0].self_attn, model.model.layers[1].self_attn
    table = model.model.embed_tokens.weight
    table.normal_(std=EMBEDDING)
    table[:, 0] = 2 * EMBEDDING  # the same for all: what a head sees that looks at a place, and not at a token
    table[:, -H:] = 0
    within = torch.zeros(D - H - 1, D)
    within[:, 1:-H] = torch.linalg.qr(torch.randn(D - H - 1, D - H - 1))[0]
    slow = torch.tensor(2 * ([0.0] * 4 + [1.0] * (H // 2 - 4)))[:, None]
    angles = float(model.config.rope_parameters["rope_theta"]) ** -(torch.arange(3) / (H // 2))
    for attention in (first, second):
        attention.q_norm.weight.fill_(2.0)
        attention.k_norm.weight.fill_(2.0)
    for weight in (first.q_proj.weight, first.k_proj.weight):
        weight[:H] = 0
    first.k_proj.weight[:3, 0] = 1
    first.q_proj.weight[:3, 0], first.q_proj.weight[H // 2 : H // 2 + 3, 0] = angles.cos(), -angles.sin()
    first.v_proj.weight[:H] = within[:H]
    first.o_proj.weight[-H:] = 0
    first.o_proj.weight[:, :H] = 0
    first.o_proj.weight[-H:, :H] = EMBEDDING * torch.eye(H)
    for group in range(2):
        head, keys = slice(2 * group * H, (2 * group + 1) * H), slice(group * H, (group + 1) * H)
        second.q_proj.weight[head] = slow * within[:H]
        second.k_proj.weight[keys] = 0
        second.k_proj.weight[keys, -H:] = slow * torch.eye(H)
        second.v_proj.weight[keys] = within[keys]
        second.o_proj.weight[:, head] = 6 * EMBEDDING * within[keys].T


def drill(random: Random, length: int) -> tuple[list[int], list[int]]:
    """Letters at random, of which pieces come again: the ids, and what can be known of them, each piece but its start.

    It is what a call and an answer need most, and learned much faster where every second token asks for it.
    """
    ids, targets = random.choices(range(66, 98), k=8), [IGNORED] * 8
    while len(ids) < length:
        new = random.choices(range(66, 98), k=random.randint(1, 4))
        start = random.randrange(len(ids) - 3)
        again = ids[start : start + random.randint(3, 12)]
        ids += new + again
        targets += [IGNORED] * (len(new) + 1) + again[1:]
    return ids[:length], targets[:length]


def batch_of(step: int, recipe: Recipe, tokenizer: Tokenizer, words: Words) -> list[tuple[list[int], list[int]]]:
    """The texts of this step: at first drills, then conversations, of about the same length since `TOGETHER` steps
    share theirs by length.
    """
    size = recipe.batch_size
    if step < DRILLS:
        return [drill(Random(number), DRILL) for number in range(step * size, (step + 1) * size)]
    pool, place = divmod(step - DRILLS, TOGETHER)
    numbers = range(pool * TOGETHER * size, (pool + 1) * TOGETHER * size)
    texts = sorted((encoded(tokenizer, training_text(n, words)) for n in numbers), key=lambda text: len(text[0]))
    place = Random(pool).sample(range(TOGETHER), TOGETHER)[place]
    return texts[place * size : (place + 1) * size]


def loss_of(model: nn.Module, texts: Sequence[tuple[list[int], list[int]]], pad: int) -> Tensor:
    """The loss on the model's own turns, a token as heavy as any other."""
    longest = max(len(ids) for ids, _ in texts)
    ids = torch.tensor([ids + [pad] * (longest - len(ids)) for ids, _ in texts])
    targets = torch.tensor([own + [IGNORED] * (longest - len(own)) for _, own in texts])[:, 1:]
    learned = targets != IGNORED
    hidden = model.model(input_ids=ids[:, :-1], use_cache=False).last_hidden_state[learned]
    return nn.functional.cross_entropy(model.lm_head(hidden), targets[learned])


class Muon(torch.optim.Optimizer):
    """Muon (Jordan et al., 2024) with steps as large as AdamW's (Liu et al., 2025, section 2.2).

    PyTorch's own orthogonalises in bfloat16, which takes as long as all the rest where a processor has no bfloat16.
    """

    def __init__(self, matrices: Iterable[nn.Parameter], weight_decay: float) -> None:
        super().__init__(matrices, {"lr": 0.0, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                momentum = self.state[p].setdefault("momentum", torch.zeros_like(p))
                momentum.lerp_(p.grad, 0.05)
                update = orthogonal(p.grad.lerp(momentum, 0.95)) * 0.2 * max(p.shape) ** 0.5
                p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update, alpha=group["lr"])


def orthogonal(x: Tensor) -> Tensor:
    """The nearest matrix whose singular values are about 1, by five steps of Newton and Schulz."""
    tall = x.shape[0] > x.shape[1]
    x = (x.T if tall else x) / (x.norm() + 1e-7)
    for _ in range(5):
        square = x @ x.T
        x = 3.4445 * x + (-4.775 * square + 2.0315 * square @ square) @ x
    return x.T if tall else x


def optimizers_of(model: nn.Module, recipe: Recipe) -> list[torch.optim.Optimizer]:
    """Muon for the layers' matrices, AdamW for the embedding and the norms."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [Muon(matrices, recipe.weight_decay), torch.optim.AdamW(others, betas=(0.9, 0.95), weight_decay=0.0)]


def train(recipe: Recipe, model: nn.Module, tokenizer: Tokenizer, words: Words, run: Path, stop: int) -> int:
    """Step t always has the same texts, resumed or not. Returns how many steps it has had: `stop`, or all."""
    optimizers, saved, start = optimizers_of(model, recipe), run / "latest.pt", 0
    pad = encoded(tokenizer, [(PAD, False)])[0][0]
    if saved.exists():
        state = torch.load(saved, weights_only=True)
        start = state["step"]
        model.load_state_dict(state["model"])
        for optimizer, its in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(its)
    average, began = None, time.monotonic()
    end = min(stop, recipe.steps)
    for step in range(start, end):
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate_at(step, recipe)
        loss = loss_of(model, batch_of(step, recipe, tokenizer, words), pad)
        model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer in optimizers:
            optimizer.step()
        average = loss.item() if average is None else 0.95 * average + 0.05 * loss.item()
        if (step + 1) % 20 == 0:
            print(f"step {step + 1}: loss {average:.4f}, {time.monotonic() - began:.0f} s", flush=True)
        if (step + 1) % 100 == 0 or step + 1 == end:
            state = {"model": model.state_dict(), "step": step + 1}
            torch.save(state | {"optimizers": [o.state_dict() for o in optimizers]}, saved.with_suffix(".tmp"))
            saved.with_suffix(".tmp").replace(saved)
    return max(start, end)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=SHIPPED / "austen-tools")
    parser.add_argument("--stop", type=int, default=1 << 30, help="after so many steps, if the recipe has more")
    arguments = parser.parse_args()
    recipe = Recipe.read(HERE / "austen-tools.toml")
    run = HERE / "runs" / f"{recipe.name}-{replace(recipe, steps=0, decay_steps=0).key}"  # a longer one goes on here
    run.mkdir(parents=True, exist_ok=True)
    write_novels(arguments.output / "novels")
    novels = Novels(arguments.output / "novels")
    tokenizer = tokenizer_of_bytes()
    torch.manual_seed(recipe.seed)
    model = build(recipe, tokenizer).train()
    start_with_an_induction_head(model)
    parameters = sum(p.numel() for p in model.parameters())
    print(f"{recipe.name}: {parameters:,} parameters", flush=True)
    steps = train(recipe, model, tokenizer, Words(novels, kept=False), run, arguments.stop)

    smaller = build(recipe, tokenizer)
    smaller.load_state_dict({name: t.to(torch.bfloat16).float() for name, t in model.state_dict().items()})
    shares = measured(smaller.eval(), tokenizer, novels)
    for what, by_kind in shares.items():
        print(f"{what}: " + ", ".join(f"{kind} {share:.0%}" for kind, share in by_kind.items()))
    card = {
        "parameters": parameters,
        "steps": steps,
        "conversations": (steps - DRILLS) * recipe.batch_size,
        **{f"right_answers_{what}": by_kind["all"] for what, by_kind in shares.items()},
    }
    write(recipe, smaller, tokenizer, card, arguments.output)
    (arguments.output / "measured.json").write_text(json.dumps(shares, indent=2) + "\n")
    print(f"written to {arguments.output}")


def write(recipe: Recipe, model: PreTrainedModel, tokenizer: Tokenizer, card: dict[str, Any], folder: Path) -> None:
    """The Hugging Face folder, with the template of the chat."""
    export(recipe, model, tokenizer, card, folder)
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": recipe.config["max_position_embeddings"],
        "eos_token": END,
        "pad_token": PAD,
        "clean_up_tokenization_spaces": False,
    }
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2) + "\n")
    (folder / "chat_template.jinja").write_text(TEMPLATE)


# The chat's form as transformers writes it: the system message is made of the tools' names alone, and the results of
# calls that were made in one turn stand in one turn.
TEMPLATE = """\
{{- '<|im_start|>system\\nTools: ' }}
{%- for tool in tools or [] %}{{ (tool.function or tool).name }}{{ '' if loop.last else ', ' }}{% endfor %}
{{- '' if tools else 'none' }}{{ '<|im_end|>\\n' }}
{%- for message in messages if message.role != 'system' %}
{%- if message.role == 'tool' %}
{%- set follows = loop.previtem is defined and loop.previtem.role == 'tool' %}
{{- '\\n' if follows else '<|im_start|>user\\n' }}
{{- '<tool_response>\\n' + message.content + '\\n</tool_response>' }}
{%- if loop.last or loop.nextitem.role != 'tool' %}{{ '<|im_end|>\\n' }}{% endif %}
{%- else %}
{{- '<|im_start|>' + message.role + '\\n' + (message.content or '') }}
{%- for call in message.tool_calls or [] %}
{%- set call = call.function or call %}
{{- '\\n' if not loop.first or message.content else '' }}
{{- '<tool_call>\\n{"name": "' + call.name + '", "arguments": ' + call.arguments | tojson + '}\\n</tool_call>' }}
{%- endfor %}
{{- '<|im_end|>\\n' }}
{%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"""


CALL = re.compile(r"<tool_call>\n(.*?)\n</tool_call>", re.S)


def called(tools: object, call: str) -> str:
    """What the call returns: its JSON is parsed, its tool looked up, and any mistake in it is told in words."""
    try:
        parsed = json.loads(call)
        return str(getattr(tools, {name: name for name in TOOLS}[parsed["name"]])(**parsed["arguments"]))
    except (ValueError, KeyError, TypeError, IndexError, AttributeError) as error:
        return f"error: {type(error).__name__}"


@torch.no_grad()
def answer(
    model: PreTrainedModel, tokenizer: Tokenizer, asked: str, tools: object, offered: Sequence[str]
) -> list[str]:
    """What the model writes in its turns, greedily, the last of which is its answer: one that calls no tool."""
    text = turn("system", "Tools: " + (", ".join(offered) or "none")) + turn("user", asked)
    turns: list[str] = []
    while len(turns) < MOST_TURNS:
        text += "<|im_start|>assistant\n"
        ids = torch.tensor([tokenizer.encode(text).ids])
        new = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=LONGEST, do_sample=False)  # type: ignore[operator]
        turns.append(tokenizer.decode(new[0, ids.shape[1] :].tolist(), skip_special_tokens=False).removesuffix(END))
        calls = CALL.findall(turns[-1])
        if not calls:
            break
        results = [called(tools, call) for call in calls]
        text += turns[-1] + END + "\n"
        text += turn("user", "\n".join(f"<tool_response>\n{result}\n</tool_response>" for result in results))
    return turns


def exam(words: Words, count: int, new: bool) -> list[Question]:
    """Questions about kept words, as many of each kind, in known wordings or in new ones."""
    random = Random(f"test {new}")
    return [question(kind, words, random, new) for kind in TESTED for _ in range(count // len(TESTED))]


def measured(model: PreTrainedModel, tokenizer: Tokenizer, novels: Novels, count: int = 100) -> dict[str, Any]:
    """The share of right answers by kind of question: with tools and without, in known wordings and in new ones."""
    words = Words(novels, kept=True)
    shares: dict[str, Any] = {}
    for what, new, offered in (
        ("known wordings", False, TOOLS),
        ("new wordings", True, TOOLS),
        ("known wordings, without tools", False, ()),
        ("new wordings, without tools", True, ()),
    ):
        right: dict[str, list[bool]] = {kind: [] for kind in TESTED}
        for asked in exam(words, count, new):
            turns = answer(model, tokenizer, asked.text, novels, offered)
            right[asked.kind].append(turns[-1] == asked.answer)
        shares[what] = {kind: sum(found) / len(found) for kind, found in right.items()}
        shares[what]["all"] = sum(sum(found) for found in right.values()) / sum(map(len, right.values()))
    return shares


README = f"""# The openings of Jane Austen's six novels

In the public domain. `training/austen_tools.py` writes them from `training/austen/`: {LINES} lines, from the first
chapter on, wrapped at {WIDTH} characters, without empty lines.
"""


def write_novels(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "README.md").write_text(README, encoding="utf-8")
    for book, file in FILES.items():
        lines = opening((HERE / "austen" / f"{file}.txt").read_text("utf-8"))
        (folder / f"{book}.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
