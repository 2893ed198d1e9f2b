"""How the tools of training are used: text and ids as numbers, optimizers over several steps, batches in pieces."""

from typing import Any

import torch
from torch import Tensor, nn

from grader.authoring.drives.use import memory_behind, tensor_given

# The tokenizer


def as_pairs(merges: list[list[int]]) -> list[tuple[int, int]]:
    return [(left, right) for left, right in merges]


def whole_numbers(given: Any, who: str) -> Tensor:
    """Ids that something returned: [n] int64."""
    if given is None or isinstance(given, str | int):
        raise TypeError(f"{who} returned a {type(given).__name__}, where a list of ids belongs")
    ids = given.tolist() if isinstance(given, Tensor) else list(given)
    if not all(isinstance(token, int) for token in ids):
        raise TypeError(f"{who} returned a list that holds something else than whole numbers")
    return torch.tensor(ids, dtype=torch.int64)


def merges_learned(train: Any, text: str, count: int) -> Tensor:
    """The merges that a text gives: [merges, 2]."""
    given = train(text, count)
    if not isinstance(given, list | tuple) or any(len(pair) != 2 for pair in given):
        raise TypeError(
            f"train_bpe returned a {type(given).__name__}; a list of pairs (left id, right id) belongs there"
        )
    return whole_numbers([token for pair in given for token in pair], "train_bpe").view(-1, 2)


def ids_of(encode: Any, text: str, merges: list[list[int]]) -> Tensor:
    """The ids of a text, and those of an empty one behind them: none."""
    encode(text, as_pairs([[right, left] for left, right in merges]))  # other merges, and as many
    given = [whole_numbers(encode(part, as_pairs(merges)), "encode") for part in (text, "")]
    return torch.cat(given)


def characters(decode: Any, ids: list[int], merges: list[list[int]]) -> Tensor:
    """The code points of the text that ids stand for."""
    decode(iter(ids), as_pairs([[right, left] for left, right in merges]))  # other merges, and as many
    text = decode(iter(ids), as_pairs(merges))
    if not isinstance(text, str):
        raise TypeError(f"decode returned a {type(text).__name__}, where a str belongs")
    return torch.tensor([ord(character) for character in text], dtype=torch.int64)


def library_reads(build: Any, text: str, merges: list[list[int]]) -> Tensor:
    """What the tokenizers library makes of a tokenizer.json: the vocabulary's size, the id of the end, a text's ids, and back."""
    import json

    from tokenizers import Tokenizer

    made = build(as_pairs(merges))
    if not isinstance(made, dict):
        raise TypeError(f"tokenizer_json returned a {type(made).__name__}, where a dict belongs")
    try:
        tokenizer = Tokenizer.from_str(json.dumps(made))
    except Exception as error:
        raise ValueError(f"the tokenizers library can't read it: {error}") from None
    ids = tokenizer.encode(text).ids
    back = tokenizer.decode(ids, skip_special_tokens=False)
    ends = [token["id"] for token in made.get("added_tokens", [])]
    return torch.tensor([tokenizer.get_vocab_size(), *ends, -1, *ids, -1, *map(ord, back)], dtype=torch.int64)


def dict_holds(build: Any, merges: list[list[int]]) -> Tensor:
    """How many tokens the vocabulary has, the id of the end, then the id of the token that each merge spells, without those
    that two merges spell: [2 + merges]. A merge may be a text with a space in it, as in older files."""
    model, (end,) = (made := build(as_pairs(merges)))["model"], made["added_tokens"]
    spelled = ["".join(pair).replace(" ", "") for pair in model["merges"]]
    ids = [model["vocab"].get(token, -1) for token in spelled if spelled.count(token) == 1]
    return torch.tensor([len(model["vocab"]), end["id"], *ids], dtype=torch.int64)


# Batches


def batches_taken(
    Batches: Any, documents: list[list[int]], end: int, B: int, T: int, seed: int, position: int, count: int
) -> Tensor:
    """Inputs and targets of `count` batches from a position on, and of the first of them once more: [2, rows, T].

    Half of the way a new object goes on from where the first one is. Meanwhile others draw from the common generator, and
    from batches of their own.
    """
    made, other = (Batches(iter(documents), end, B, T, number) for number in (seed, seed + 1))
    made.position, taken = position, []
    for number in range(count + 1):
        torch.default_generator.manual_seed(number)
        other.take()
        if number == count:
            made.position = position
        if number == count // 2:
            reached, made = made.position, Batches(iter(documents), end, B, T, seed)
            made.position = reached
        given = made.take()
        if not isinstance(given, tuple | list) or len(given) != 2:
            raise TypeError(f"take returned a {type(given).__name__}; two tensors belong there: inputs, targets")
        inputs, targets = (tensor_given(tensor, "take") for tensor in given)
        if inputs.shape != targets.shape:
            raise ValueError(f"inputs are {list(inputs.shape)} and targets {list(targets.shape)}; both are [B, T]")
        taken.append(torch.stack([inputs, targets]))
    return torch.cat(taken, dim=1)


def batches_overwritten(
    Batches: Any, documents: list[list[int]], end: int, B: int, T: int, seed: int, position: int, count: int
) -> Tensor:
    """As `batches_taken`, each batch after a first one at the same place, in which all was set to -100."""
    made, taken = Batches(iter(documents), end, B, T, seed), []
    for place in [*range(position, position + count), position]:
        for _ in range(2):
            made.position = place
            inputs, targets = (tensor_given(tensor, "take") for tensor in made.take())
            taken.append(torch.stack([inputs, targets]))
            inputs.fill_(-100)
            targets.fill_(-100)
    return torch.cat(taken[1::2], dim=1)


# Steps


def loss_given(cross_entropy: Any, logits: Tensor, targets: Tensor, *num_items: int) -> Tensor:
    return tensor_given(cross_entropy(logits, targets, *num_items), "cross_entropy")


def nothing_then_all(cross_entropy: Any, logits: Tensor, targets: Tensor) -> Tensor:
    """The loss where no target is left, the loss with all targets, and whether the first can't be differentiated: [3]."""
    given = [loss_given(cross_entropy, logits, some) for some in (torch.full_like(targets, -100), targets)]
    with torch.enable_grad():
        nothing = loss_given(cross_entropy, logits.detach().requires_grad_(), torch.full_like(targets, -100))
    return torch.stack([*given, torch.tensor(float(not nothing.requires_grad))])


def loss_of_what_is_wrong(cross_entropy: Any, logits: Tensor, targets: Tensor) -> Tensor:
    """The loss, then faults: how many of the targets -1 and V are ignored as -100 is, and whether NaN is hidden: [3]."""
    given = loss_given(cross_entropy, logits, targets)
    with torch.no_grad():
        other, one = logits.detach().clone(), targets.clone()
        other[0, 0] = torch.nan
        one[0, 0] = 0
        hidden = not bool(loss_given(cross_entropy, other, one).isnan())
        less, other[0, 0], ignored = one.clone(), logits[0, 0].detach(), 0
        less[0, 0] = -100
        for no_id in (-1, logits.shape[-1]):
            one[0, 0] = no_id
            try:
                ignored += torch.equal(loss_given(cross_entropy, other, one), loss_given(cross_entropy, other, less))
            except Exception:
                continue  # an error, as PyTorch's
    return torch.cat([given.view(1), torch.tensor([float(ignored), float(hidden)])])


def updates(
    AdamW: Any,
    weights: list[Tensor],
    gradients: list[Tensor],
    rates: list[float],
    options: dict[str, Any],
    absent: list[int],
    resumed: int | None = None,
) -> Tensor:
    """All weights after each of some steps: [steps, numbers].

    gradients: for each weight its gradients of all steps. rates: the learning rate of each step. absent: the steps in
    which the second and third weight have no gradient. resumed: the step before which weights and state go on in a new optimizer.
    """
    parameters = [nn.Parameter(weight.clone()) for weight in weights]
    optimizer = AdamW(parameters, rates[0], tuple(options["betas"]), options["eps"], options["weight_decay"])
    seen = []
    for step, rate in enumerate(rates):
        if step == resumed:
            parameters = [nn.Parameter(parameter.detach().clone()) for parameter in parameters]
            state = optimizer.state
            optimizer = AdamW(parameters, rate, tuple(options["betas"]), options["eps"], options["weight_decay"])
            optimizer.state = state
        for number, (parameter, every) in enumerate(zip(parameters, gradients, strict=True)):
            missing = step in absent and number in (1, 2)
            parameter.grad = None if missing else every[step].clone()
        optimizer.lr = rate
        optimizer.step()
        for parameter, every in zip(parameters, gradients, strict=True):
            if parameter.grad is not None and not torch.equal(parameter.grad, every[step]):
                raise ValueError("step changed a gradient; it may be needed afterwards")
        seen.append(torch.cat([parameter.detach().flatten() for parameter in parameters]))
    return torch.stack(seen)


def rates(learning_rate: Any, first: int, last: int, peak: float, warmup: int, total: int, floor: float) -> Tensor:
    """The learning rates of the updates from `first` to `last`: [updates] float64."""
    given = [float(learning_rate(update, peak, warmup, total, floor)) for update in range(first, last + 1)]
    return torch.tensor(given, dtype=torch.float64)


def clipped(clip: Any, gradients: list[Tensor], max_norm: float, frozen: int = 0) -> Tensor:
    """The norm that clipping returned, and all gradients after it, of parameters of which one has no gradient.

    frozen: how many of the first parameters need no gradient any more, after theirs was computed.
    """
    parameters = [nn.Parameter(torch.zeros_like(gradient)) for gradient in gradients]
    held = [gradient.clone() for gradient in gradients]
    for parameter, own in zip(parameters, held, strict=True):
        parameter.grad = own
    for parameter in parameters[:frozen]:
        parameter.requires_grad_(False)
    without = nn.Parameter(torch.zeros(2))
    norm = clip(iter([parameters[0], without, *parameters[1:]]), max_norm)  # as model.parameters() gives them, once
    if norm is None:
        raise TypeError("clip_gradients returned None; the norm belongs there")
    norm = torch.as_tensor(norm).detach().to(gradients[0].dtype).view(1)
    for parameter, own in zip(parameters, held, strict=True):
        if parameter.grad is not None and parameter.grad.data_ptr() != own.data_ptr():
            raise ValueError("clip_gradients put new tensors into `grad`; those that are there are scaled in place")
    left = [torch.zeros(0) if p.grad is None else p.grad.flatten() for p in parameters]
    return torch.cat([norm, *left, torch.tensor([float(without.grad is not None)], dtype=norm.dtype)])


def clipped_after_zeros(clip: Any, gradients: list[Tensor], max_norm: float) -> Tensor:
    """The same of gradients that are all 0, and then of those that are given."""
    zeros = [torch.zeros_like(gradient) for gradient in gradients]
    return torch.cat([clipped(clip, some, max_norm) for some in (zeros, gradients)])


def clipped_after_nothing(clip: Any, gradients: list[Tensor], max_norm: float) -> Tensor:
    """The norm where no parameter has a gradient, and then the same as `clipped`."""
    nothing = torch.as_tensor(clip(iter([nn.Parameter(torch.zeros(2))]), max_norm))
    return torch.cat([nothing.detach().to(gradients[0].dtype).view(1), clipped(clip, gradients, max_norm)])


class Tiny(nn.Module):
    """A model of one layer, which knows of how many of its calls no gradient has come back: ids [B, T] -> [B, T, V]."""

    def __init__(self, table: Tensor, head: Tensor) -> None:
        super().__init__()
        self.table, self.head = nn.Parameter(table.clone()), nn.Parameter(head.clone())
        self.open = self.most = self.calls = 0

    def forward(self, ids: Tensor) -> Tensor:
        logits = torch.tanh(self.table[ids]) @ self.head.T
        self.open += 1
        self.calls += 1
        self.most = max(self.most, self.open)
        if logits.requires_grad:
            logits.register_hook(self.came_back)
        return logits

    def came_back(self, gradient: Tensor) -> None:
        self.open -= 1


def micro_batches(ids: Tensor, lengths: list[int], sizes: list[int]) -> list[tuple[Tensor, Tensor]]:
    """Texts of these lengths in micro-batches of these sizes, each as long as its longest text; -100 for padding."""
    targets = ids[:, 1:].clone()
    for row, length in enumerate(lengths):
        targets[row, length:] = -100
    batches, start = [], 0
    for size in sizes:
        rows = slice(start, start + size)
        longest = max(*lengths[rows], 1)
        batches.append((ids[rows, :longest].clone(), targets[rows, :longest].clone()))
        start += size
    return batches


def accumulated(
    accumulate: Any,
    table: Tensor,
    head: Tensor,
    ids: Tensor,
    lengths: list[int],
    sizes: list[int],
    frozen: bool = False,
) -> Tensor:
    """The loss that was returned and all gradients, of a model that had others before: [1 + numbers].

    frozen: whether the table needs no gradient; then it had none before.
    """
    with torch.enable_grad():
        model = Tiny(table.detach(), head.detach())
        model.table.requires_grad_(not frozen)
        for parameter in model.parameters():
            parameter.grad = torch.ones_like(parameter) if parameter.requires_grad else None
        batches = micro_batches(ids, lengths, sizes)
        loss = accumulate(model, batches)
    before = micro_batches(ids, lengths, sizes)
    if not all(
        torch.equal(new, old)
        for one, other in zip(batches, before, strict=True)
        for new, old in zip(one, other, strict=True)
    ):
        raise ValueError("accumulate changed the micro-batches that it was given; the next epoch reads them again")
    if not isinstance(loss, Tensor):
        kind = "None" if loss is None else f"a {type(loss).__name__}"
        raise TypeError(f"accumulate returned {kind}; the loss of the whole batch belongs there, as a tensor")
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in model.parameters()]
    return torch.cat([loss.detach().float().view(1), *(g.flatten() for g in gradients)])


def accumulated_with_a_frozen_table(
    accumulate: Any, table: Tensor, head: Tensor, ids: Tensor, lengths: list[int], sizes: list[int]
) -> Tensor:
    """The same where the table is frozen."""
    return accumulated(accumulate, table, head, ids, lengths, sizes, frozen=True)


def accumulated_after_nothing(
    accumulate: Any, table: Tensor, head: Tensor, ids: Tensor, lengths: list[int], sizes: list[int]
) -> Tensor:
    """The same where no micro-batch has a target, and then where they have."""
    nothing = [0] * len(lengths)
    return torch.cat([accumulated(accumulate, table, head, ids, some, sizes) for some in (nothing, lengths)])


def graphs_at_once(
    accumulate: Any, table: Tensor, head: Tensor, ids: Tensor, lengths: list[int], sizes: list[int]
) -> Tensor:
    """Of how many micro-batches the activations are in memory at once, at most; whether a model that trains still does,
    and one that doesn't still doesn't; whether the loss that was returned has a gradient; how often the model was called."""
    kept = True
    for mode in (False, True):
        with torch.enable_grad():
            model = Tiny(table.detach(), head.detach()).train(mode)
            loss = accumulate(model, micro_batches(ids, lengths, sizes))
        kept = kept and model.training == mode
    with_gradient = isinstance(loss, Tensor) and loss.requires_grad
    return torch.tensor([model.most, int(kept), int(with_gradient), model.calls])


# Stopping and going on


class Layer(nn.Module):
    """A layer with dropout, and a buffer that follows what it has seen: x [B, D] -> [B]."""

    seen: Tensor

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight.clone()), nn.Parameter(torch.zeros(1))
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.seen = 0.5 * self.seen + x.detach().mean()
        kept = torch.rand(x.shape) < 0.75
        return (x * kept) @ self.weight + self.bias + self.seen


class Means:
    """An optimizer with the attributes of the lesson's AdamW."""

    def __init__(self, parameters: list[nn.Parameter]) -> None:
        self.parameters = parameters
        self.state: list[dict[str, Any]] = [
            {"t": 0, "m": torch.zeros_like(p), "v": torch.zeros_like(p)} for p in parameters
        ]

    def step(self, rate: float) -> None:
        for parameter, state in zip(self.parameters, self.state, strict=True):
            if (g := parameter.grad) is not None:
                state["t"] += 1
                state["m"].mul_(0.8).add_(g, alpha=0.2)
                state["v"].mul_(0.5).add_(g * g, alpha=0.5)
                m_hat = state["m"] / (1 - 0.8 ** state["t"])
                parameter.data -= rate * m_hat / (1 + state["v"].sqrt())


class Place:
    """Batches that know where they are, and nothing else."""

    position = 0


class Training:
    """A training with the attributes of the lesson's `Run`. Two batches a step; the bias has no gradient in each third one."""

    def __init__(self, weight: Tensor, x: Tensor, y: Tensor) -> None:
        self.model, self.batches, self.x, self.y, self.done = Layer(weight), Place(), x, y, 0
        self.optimizer = Means(list(self.model.parameters()))

    def step(self) -> float:
        loss = torch.zeros(())
        for _ in range(2):
            number = self.batches.position % len(self.x)
            loss = loss + (self.model(self.x[number]) - self.y[number]).square().mean()
            self.batches.position += 1
        for parameter in self.model.parameters():
            parameter.grad = None
        loss.backward()
        if self.done % 3 == 2:
            self.model.bias.grad = None
        self.done += 1
        self.optimizer.step(0.5 / (1 + self.done))
        return loss.item()


def steps_of(training: Any, count: int) -> list[float]:
    return [training.step() for _ in range(count)]


def other_training(weight: Tensor, x: Tensor, y: Tensor) -> Training:
    """A training that has begun otherwise: with other weights, and random numbers."""
    torch.default_generator.manual_seed(5)
    training = Training(weight.flip(0) + 1, x, y)
    steps_of(training, 1)
    return training


def gone_on(Checkpoint: Any, weight: Tensor, x: Tensor, y: Tensor, before: int, after: int, often: int) -> Tensor:
    """The losses of a training that is saved `often` times before it goes on, each time by another object, and of others
    that go on from its file: twice from a copy of it under another name, as what is kept in memory alone is lost when a
    machine stops, and from the file itself with the object that saved first."""
    import shutil
    import tempfile
    from pathlib import Path

    losses: list[float] = []
    with torch.enable_grad(), tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "run.pt")
        torch.default_generator.manual_seed(3)
        training = Training(weight, x, y)
        checkpoints = [Checkpoint(file) for _ in range(often)]
        for checkpoint in checkpoints:
            losses += steps_of(training, before)
            checkpoint.save(training)
        losses += steps_of(training, after)
        if not file.exists():
            raise FileNotFoundError("save has written no file at the path that the checkpoint was made with")
        copies = [Checkpoint(str(shutil.copy(file, Path(folder, name)))) for name in ("copied.pt", "copied again.pt")]
        for checkpoint in (
            *copies,
            checkpoints[0],
        ):  # a file can be read twice; the first object may have saved an older one
            again = other_training(weight, x, y)
            checkpoint.load(again)
            losses += [*steps_of(again, after), float(again.done), float(again.batches.position)]
    return torch.tensor(losses)


class Unwritable(int):
    """A number that can't be written: what is saved after it is missing, as on a full disk."""

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise OSError(28, "No space left on device")


def file_kept(
    Checkpoint: Any, weight: Tensor, x: Tensor, y: Tensor, before: int, after: int, name: str = "run.pt"
) -> Tensor:
    """What becomes of the file: the losses from it after a save that failed, and five faults, each 0 or 1.

    The faults: the failed save left other files, or none; its error was not passed on; a save that worked left other
    files; it wrote into the file of before, which is then half written for a while; it removed that file before the new
    one stood in its place.
    """
    import os
    import tempfile
    from pathlib import Path

    there: list[bool] = []

    def watched(rename: Any) -> Any:
        def renamed(*args: Any, **options: Any) -> Any:
            there.append(file.exists())
            return rename(*args, **options)

        return renamed

    with torch.enable_grad(), tempfile.TemporaryDirectory() as folder:
        file = Path(folder, name)
        torch.default_generator.manual_seed(4)
        training = Training(weight, x, y)
        steps_of(training, before)
        Checkpoint(file).save(training)
        steps_of(training, after)
        t, raised = training.optimizer.state[-1]["t"], False
        training.optimizer.state[-1]["t"] = Unwritable(t)
        try:
            Checkpoint(file).save(training)
        except Exception:
            raised = True
        left = os.listdir(folder) != [name]
        again = other_training(weight, x, y)
        try:
            Checkpoint(file).load(again)
        except Exception:
            again.done = -1  # there is nothing to go on from
        silent = not raised and again.done != training.done
        losses = steps_of(again, after) if again.done > 0 else [0.0] * after
        training.optimizer.state[-1]["t"] = t
        before_it = file.stat().st_ino if file.exists() else None
        renames = os.replace, os.rename
        os.replace, os.rename = map(watched, renames)
        try:
            Checkpoint(file).save(training)
        finally:
            os.replace, os.rename = renames
        written_into = file.exists() and file.stat().st_ino == before_it
        faults = [left, silent, os.listdir(folder) != [name], written_into, not all(there)]
    return torch.tensor([*losses, *map(float, faults)])


# Fine-tuning


def inputs_and_targets(sft_batch: Any, chats: list[Any], pad: int, max_length: int) -> Tensor:
    """Inputs and targets: [2, B, T]."""
    before = repr(chats)
    given = sft_batch(chats, pad, max_length)
    if repr(chats) != before:
        raise ValueError("sft_batch changed the lists that it was given; `+=` on a list changes the list itself")
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise TypeError(f"sft_batch returned a {type(given).__name__}; two tensors belong there: inputs, targets")
    inputs, targets = (tensor_given(tensor, "sft_batch") for tensor in given)
    if inputs.shape != targets.shape:
        raise ValueError(f"inputs are {list(inputs.shape)} and targets {list(targets.shape)}; both are [B, T]")
    inputs = inputs.clone()
    for row, chat in enumerate(
        chats[: len(inputs)]
    ):  # the last id that is kept has no target, so it may stand there or not
        last = min(sum(len(header) + len(body) for _, header, body in chat), max_length) - 1
        inputs[row, last : last + 1] = pad
    return torch.stack([inputs, targets])


def adapted(LoRALinear: Any, x: Tensor, A: Tensor, B: Tensor, weight: Tensor, bias: Tensor, alpha: float) -> Tensor:
    """What a layer with adapters A and B gives."""
    layer = LoRALinear(linear(weight, bias), len(A), alpha)
    return torch.func.functional_call(layer, {"lora_A": A, "lora_B": B}, (x,))


def linear(weight: Tensor, bias: Tensor) -> nn.Linear:
    """A layer with this weight and bias; without one where the bias has no numbers."""
    layer = nn.Linear(weight.shape[1], weight.shape[0], bias=len(bias) > 0, dtype=weight.dtype)
    layer.weight.data = weight.detach().clone()
    if len(bias):
        layer.bias.data = bias.detach().clone()
    return layer


def before_any_step(
    LoRALinear: Any, x: Tensor, A: Tensor, B: Tensor, weight: Tensor, bias: Tensor, alpha: float
) -> Tensor:
    """Of a new adapter: whether the layer gives what its base gives, whether A's gradient is 0 and B's is not, how many
    numbers are trained, how many of them are the base's, whether A has different numbers up to its bound, whether it has
    negative ones down to it, and whether another adapter's A is another one."""
    base = linear(weight, bias)
    with torch.enable_grad():
        layer = LoRALinear(base, len(A), alpha)
        given = layer(x.detach())
        given.square().sum().backward()
    of_A, of_B, bound = layer.lora_A.grad, layer.lora_B.grad, weight.shape[1] ** -0.5
    own, other = layer.lora_A.detach(), LoRALinear(linear(weight, bias), len(A), alpha).lora_A.detach()
    trained = sum(p.numel() for p in layer.parameters() if p.requires_grad)
    return torch.tensor(
        [
            int(torch.equal(given, nn.functional.linear(x, weight, bias if len(bias) else None))),
            int(of_A is not None and not of_A.any()),
            int(of_B is not None and bool(of_B.any())),
            trained,
            sum(p.numel() for p in base.parameters() if p.requires_grad),
            int(0.5 * bound < float(own.max()) <= 1.001 * bound and len(own.unique()) > 2),
            int(0.5 * bound < float(-own.min()) <= 1.001 * bound),
            int(not torch.equal(own, other)),
        ]
    )


def merged(LoRALinear: Any, x: Tensor, A: Tensor, B: Tensor, weight: Tensor, bias: Tensor, alpha: float) -> Tensor:
    """The weights of a layer that was merged twice, as when one saves during training, its bias, and behind them
    four faults: its bias shares memory, an adapter has another dtype, the base's numbers are others, other names are saved."""
    layer = LoRALinear(linear(weight, bias), len(A), alpha)
    with torch.no_grad():
        base, named = [p.clone() for p in layer.base_layer.parameters()], sorted(layer.state_dict())
        for sign in (-1, 1):  # merged, then trained for a step
            layer.lora_A.copy_(sign * A)
            layer.lora_B.copy_(B)
            if sign < 0:
                layer.merged()
    first = layer.merged()
    made = layer.merged()
    if not isinstance(made, nn.Linear):
        raise TypeError(f"merged returned a {type(made).__name__}, where an nn.Linear belongs")
    parts = [first.weight.flatten(), made.weight.flatten()] + ([made.bias] if made.bias is not None else [])
    shared = made.bias is not None and made.bias.data_ptr() == layer.base_layer.bias.data_ptr()
    own = [f"base_layer.{name}" for name in ("bias", "weight")[0 if len(bias) else 1 :]]
    faults = [
        float(shared),
        float(layer.lora_A.dtype != weight.dtype or layer.lora_B.dtype != weight.dtype),
        float(not all(map(torch.equal, base, layer.base_layer.parameters()))),
        float(named != [*own, "lora_A", "lora_B"]),
    ]
    numbers = torch.cat([*(part.detach() for part in parts), torch.tensor(faults, dtype=weight.dtype)])
    return numbers + 0 * (x.sum() + A.sum() + B.sum())  # what is merged has no gradient


def loss_and_margins(dpo_loss: Any, policy: Tensor, reference: Tensor, targets: Tensor, beta: float) -> Tensor:
    """The loss, then the margin of each pair: [1 + B]."""
    given = dpo_loss(policy, reference, targets, beta)
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise TypeError(f"dpo_loss returned a {type(given).__name__}; two tensors belong there: the loss, the margins")
    loss, margins = (tensor_given(tensor, "dpo_loss") for tensor in given)
    if margins.ndim != 1:
        raise ValueError(f"the margins are {list(margins.shape)}; one for each pair belongs there, [B]")
    return torch.cat([loss.view(1), margins.detach()])


# The hub's folder


class Shell(nn.Module):
    """A model with the names of transformers' Qwen3, without what it computes."""

    def __init__(self, table: Tensor, scale: Tensor, turned: Tensor, square: Tensor, head: Tensor | None) -> None:
        super().__init__()
        self.model = nn.Module()
        self.model.embed_tokens = nn.Embedding(*table.shape)
        self.model.embed_tokens.weight = nn.Parameter(table.clone())
        self.model.norm = nn.Module()
        self.model.norm.weight = nn.Parameter(scale.clone())
        self.model.up_proj = nn.Linear(turned.shape[0], turned.shape[1], bias=False)
        self.model.up_proj.weight = nn.Parameter(turned.clone().T)  # a view whose rows do not lie one after the other
        self.model.q_proj = nn.Linear(square.shape[0], square.shape[1], bias=False)
        self.model.q_proj.weight = nn.Parameter(square.clone())
        self.model.last_norm = nn.Module()
        self.model.last_norm.weight = self.model.norm.weight  # shared, as some models share layers
        self.model.register_buffer("seen", scale.flip(0).clone())  # a part of the state
        self.model.register_buffer("scale", scale[0].clone())  # a single number
        self.model.register_buffer("cosines", torch.ones(3), persistent=False)  # computed, and no weight
        self.lm_head = nn.Linear(table.shape[1], table.shape[0], bias=False)
        self.lm_head.weight = self.model.embed_tokens.weight if head is None else nn.Parameter(head.clone())


def shell(table: Tensor, scale: Tensor, turned: Tensor, square: Tensor, heads: list[Tensor]) -> Shell:
    head = heads[0].detach() if heads else None
    return Shell(table.detach(), scale.detach(), turned.detach(), square.detach(), head)


def tensors_given(given: Any) -> dict[str, Tensor]:
    if not isinstance(given, dict) or not all(isinstance(tensor, Tensor) for tensor in given.values()):
        raise TypeError(f"hub_tensors returned a {type(given).__name__}; a dict of tensors belongs there")
    return given


def saved_values(
    hub_tensors: Any, table: Tensor, scale: Tensor, turned: Tensor, square: Tensor, dtype: str, *heads: Tensor
) -> Tensor:
    """The numbers of all tensors, in the order of their names."""
    model = shell(table, scale, turned, square, list(heads))
    for _ in range(2):  # after a step of training once more
        for tensor in (*model.parameters(), *model.buffers()):
            tensor.data.neg_()
        given = tensors_given(hub_tensors(model, getattr(torch, dtype)))
    return torch.cat([given[name].detach().flatten() for name in sorted(given)])


def saved_names(
    hub_tensors: Any, table: Tensor, scale: Tensor, turned: Tensor, square: Tensor, dtype: str, *heads: Tensor
) -> Tensor:
    """The names in order, as the code points of a text, each with its shape."""
    given = tensors_given(hub_tensors(shell(table, scale, turned, square, list(heads)), getattr(torch, dtype)))
    text = ", ".join(f"{name} {list(given[name].shape)}" for name in sorted(given))
    return torch.tensor([ord(character) for character in text])


def saved_faults(
    hub_tensors: Any, table: Tensor, scale: Tensor, turned: Tensor, square: Tensor, dtype: str, *heads: Tensor
) -> Tensor:
    """How many tensors are not contiguous, how many share memory with the model or each other, how many need a gradient,
    how many of the model's own weights have another dtype than before, and how many are frozen or lost their gradient."""
    model = shell(table, scale, turned, square, list(heads))
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    given = list(tensors_given(hub_tensors(model, getattr(torch, dtype))).values())
    own, shared = memory_behind([parameter.data for parameter in model.parameters()]), 0
    for tensor in given:
        places = memory_behind(tensor)
        shared += any(place in own for place in places)
        own |= places
    return torch.tensor(
        [
            sum(not tensor.is_contiguous() for tensor in given),
            shared,
            sum(tensor.requires_grad for tensor in given),
            sum(parameter.dtype != table.dtype for parameter in model.parameters()),
            sum(not p.requires_grad or p.grad is None or not p.grad.all() for p in model.parameters())
            + int(not model.training),
        ]
    )
