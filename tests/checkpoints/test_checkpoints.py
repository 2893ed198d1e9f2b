"""The registry, and checkpoints that are on this machine."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hub import tiny_tokenizer, write_tiny_gpt2
from safetensors.torch import save_file
from torch import nn
from transformers import AutoModelForCausalLM, GPT2Config, GPT2Model

from grader import checkpoints
from grader.checkpoints import generated, golden, registry
from grader.checkpoints.checkpoint import Checkpoint
from grader.config import Config
from grader.errors import GraderError
from grader.names import TIED
from grader.tolerance import tolerance_for

GPT2S = ("gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl")


@pytest.fixture(scope="session")
def shipped(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of shipped checkpoints with a small stand-in for austen-gpt2."""
    folder = tmp_path_factory.mktemp("shipped")
    write_tiny_gpt2(folder / "austen-gpt2", "shipped")
    return folder


@pytest.fixture
def checkpoint(shipped: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    monkeypatch.setattr(registry, "SHIPPED", shipped)
    return checkpoints.load_checkpoint("austen-gpt2")


def model_for(checkpoint: Checkpoint, **changes: int) -> GPT2Model:
    return GPT2Model(GPT2Config(**{**checkpoint.config, **changes}))


# The registry


def test_every_entry_can_be_read() -> None:
    assert {"austen-gpt2", *GPT2S} <= set(registry.names())
    for name in registry.names():
        entry = registry.entry(name)
        assert "config.json" in entry.files and "tokenizer.json" in entry.files
        assert all(file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256) for file in entry.files.values())
        assert entry.hub is None or re.fullmatch("[0-9a-f]{40}", entry.hub.revision)
        assert all(found.origin and (found.new_ids or found.text) for found in entry.goldens)


@pytest.mark.parametrize("name", GPT2S)
def test_gpt2s_mask_buffers_and_tied_head_are_dropped_and_nothing_else(name: str) -> None:
    from fnmatch import fnmatchcase

    with torch.device("meta"):
        weights = GPT2Model(GPT2Config(n_layer=12)).state_dict()
    drop = registry.entry(name).drop
    assert not [weight for weight in weights if any(fnmatchcase(weight, pattern) for pattern in drop)]
    for extra in ("h.0.attn.bias", "h.11.attn.bias", "h.3.attn.masked_bias", "lm_head.weight"):
        assert any(fnmatchcase(extra, pattern) for pattern in drop)


def test_gpt2s_size_is_that_of_its_parameters_and_masks() -> None:
    entry = registry.entry("gpt2")
    size = entry.files["model.safetensors"].size
    assert entry.parameters == 124_439_808 and size is not None
    masks = 12 * 1024 * 1024
    assert 0 < size - 4 * (entry.parameters + masks) < 20_000  # what is left is safetensors' header


def test_gpt2s_golden_generations_are_the_public_ones() -> None:
    first, second, third = registry.entry("gpt2").goldens
    assert first.prompt_ids == (464, 3290) and first.new_ids is not None and len(first.new_ids) == 18
    assert (second.n_tokens, third.n_tokens) == (40, 30)
    assert second.text is not None and second.text.endswith("very similar to the human brain.")


@pytest.mark.parametrize(("wrong", "right"), [("gtp2", "gpt2"), ("austengpt2", "austen-gpt2"), ("GPT2-XL", "gpt2-xl")])
def test_an_unknown_name_suggests_the_closest(wrong: str, right: str) -> None:
    with pytest.raises(GraderError, match=f"Did you mean `{right}`"):
        checkpoints.load_checkpoint(wrong)


def test_a_name_like_no_other_lists_them_all() -> None:
    with pytest.raises(GraderError, match=f"There are: {', '.join(registry.names())}"):
        checkpoints.load_checkpoint("zzz")


def test_a_name_is_no_path() -> None:
    with pytest.raises(GraderError, match="There is no checkpoint"):
        checkpoints.load_checkpoint("../registry/gpt2")


def test_the_list_says_what_is_here(checkpoint: Checkpoint) -> None:
    listed = {item.name: item for item in checkpoints.list_checkpoints()}
    assert listed["austen-gpt2"].place == "shipped"
    assert listed["austen-gpt2"].size == sum(
        (checkpoint.folder / name).stat().st_size for name in ("config.json", "model.safetensors", "tokenizer.json")
    )
    assert not listed["gpt2"].gated
    assert listed["gpt2"].parameters == 124_439_808
    assert listed["gpt2"].pinned and not listed["gpt2-large"].pinned


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model.safetensors"])
def test_a_shipped_checkpoint_that_lacks_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(registry, "SHIPPED", tmp_path)
    write_tiny_gpt2(tmp_path / "austen-gpt2", "shipped")
    (tmp_path / "austen-gpt2" / name).unlink()
    listed = {item.name: item for item in checkpoints.list_checkpoints()}
    assert (listed["austen-gpt2"].place, listed["austen-gpt2"].size) == ("missing", None)
    with pytest.raises(checkpoints.Unavailable, match=rf"lacks {re.escape(name)}\. Install the course again"):
        checkpoints.get("austen-gpt2")


def test_a_shipped_checkpoint_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "SHIPPED", tmp_path)
    with pytest.raises(checkpoints.Unavailable, match="Install the course again"):
        checkpoints.load_checkpoint("austen-gpt2")


# Loading


def test_weights_on_disk_in_bfloat16_come_as_float32(checkpoint: Checkpoint) -> None:
    state = checkpoint.state_dict()
    assert {tensor.dtype for tensor in state.values()} == {torch.float32}
    assert checkpoint.state_dict(torch.bfloat16)["wte.weight"].dtype == torch.bfloat16


def test_the_shipped_layout_loads_into_the_hubs_names(checkpoint: Checkpoint) -> None:
    model = model_for(checkpoint)
    checkpoint.load_into(model)
    reference = AutoModelForCausalLM.from_pretrained(checkpoint.folder, dtype=torch.float32).transformer.state_dict()
    assert all(torch.equal(tensor, reference[name]) for name, tensor in model.state_dict().items())


def test_config_and_tokenizer(checkpoint: Checkpoint) -> None:
    assert checkpoint.config.n_embd == 32
    assert checkpoint.tokenizer.decode(checkpoint.tokenizer.encode("It is").ids) == "It is"


def renamed(model: GPT2Model) -> None:
    for block in model.h:
        block.attn.qkv = block.attn._modules.pop("c_attn")


def without_norm(model: GPT2Model) -> None:
    del model.ln_f


def with_a_mask(model: GPT2Model) -> None:
    for block in model.h:
        block.attn.register_buffer("mask", torch.ones(4, 4))


def transposed(model: GPT2Model) -> None:
    model.wpe.weight = nn.Parameter(model.wpe.weight.T.contiguous())


def with_an_untied_head(model: GPT2Model) -> None:
    model.lm_head = nn.Linear(32, 300, bias=False)


@pytest.mark.parametrize(
    ("spoil", "line"),
    [
        (renamed, "`h.*.attn.qkv.weight` is not in the checkpoint; did you mean `h.*.attn.c_attn.weight`?"),
        (without_norm, "`ln_f.weight` [32] is in the checkpoint, and missing here"),
        (with_a_mask, "`h.*.attn.mask` is a buffer; register it with `persistent=False`"),
        (transposed, "`wpe.weight` has shape [32, 64]; in the checkpoint it is [64, 32], transposed"),
        (with_an_untied_head, f"`lm_head.weight` is not in the checkpoint{TIED}"),
    ],
)
def test_a_mismatch_is_explained_and_leaves_the_model_alone(
    checkpoint: Checkpoint, spoil: Callable[[GPT2Model], None], line: str
) -> None:
    model = model_for(checkpoint)
    spoil(model)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(GraderError) as error:
        checkpoint.load_into(model)
    assert line in str(error.value).splitlines()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_one_wrong_layer_keeps_its_number(checkpoint: Checkpoint) -> None:
    model = model_for(checkpoint)
    del model.h[1].ln_2
    with pytest.raises(GraderError, match=r"`h\.1\.ln_2\.weight`"):
        checkpoint.load_into(model)


def test_a_model_of_another_size_gets_a_short_answer(checkpoint: Checkpoint) -> None:
    with pytest.raises(GraderError) as error:
        checkpoint.load_into(model_for(checkpoint, n_embd=64))
    lines = str(error.value).splitlines()
    assert len(lines) <= 10 and "more like these" in lines[-1]


def test_a_head_tied_by_the_learner_is_loaded_with_what_it_is_tied_to(checkpoint: Checkpoint) -> None:
    model = model_for(checkpoint)
    with_an_untied_head(model)
    model.lm_head.weight = model.wte.weight
    checkpoint.load_into(model)
    assert torch.equal(model.lm_head.weight, checkpoint.state_dict()["wte.weight"])


def test_a_class_is_not_a_model(checkpoint: Checkpoint) -> None:
    with pytest.raises(GraderError, match="build it first"):
        checkpoint.load_into(GPT2Model)  # type: ignore[arg-type]


class OfLinears(nn.Module):
    """Two layers that draw first values, of the widths in a config."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.head = nn.Linear(config.n_embd, config.vocab_size)
        self.config = config


def of_linears(tmp_path: Path) -> tuple[OfLinears, Checkpoint]:
    """A model, and a checkpoint that is not it but has its names and shapes."""
    (tmp_path / "config.json").write_text('{"vocab_size": 300, "n_embd": 32, "n_layer": 2}')
    saved = OfLinears(Config.read(tmp_path / "config.json"))
    save_file(saved.state_dict(), tmp_path / "model.safetensors")
    return saved, Checkpoint(registry.entry("gpt2"), tmp_path, "hub")


def test_a_model_is_built_with_the_config_and_the_weights_and_without_first_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved, checkpoint = of_linears(tmp_path)
    monkeypatch.setattr(nn.init, "kaiming_uniform_", None)  # drawing any value fails
    monkeypatch.setattr(nn.init, "normal_", None)
    model = checkpoint.build(OfLinears, n_layer=5)
    assert not model.training and model.config.n_layer == 5 and model.config.n_embd == 32
    assert all(torch.equal(tensor, saved.state_dict()[name]) for name, tensor in model.state_dict().items())


def test_a_model_that_cannot_be_built_says_why_and_others_get_first_values_again(tmp_path: Path) -> None:
    _, checkpoint = of_linears(tmp_path)
    with pytest.raises(GraderError, match=r"`wte\.weight` has shape \[300, 64\]"):
        checkpoint.build(OfLinears, n_embd=64)
    with pytest.raises(GraderError, match=r"given a Linear, and needs its class"):
        checkpoint.build(nn.Linear(2, 2))  # type: ignore[type-var]
    with pytest.raises(RuntimeError, match="negative"):
        checkpoint.build(OfLinears, n_embd=-1)
    torch.manual_seed(0)
    first = nn.Linear(3, 4).weight.clone()
    torch.manual_seed(0)
    assert torch.equal(nn.Linear(3, 4).weight, first)
    assert 0 < first.abs().max() <= 3**-0.5


def test_a_damaged_weight_file_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "SHIPPED", tmp_path)
    write_tiny_gpt2(tmp_path / "austen-gpt2", "shipped")
    weights = tmp_path / "austen-gpt2/model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(GraderError, match=r"can't be read .* install the course again"):
        checkpoints.load_checkpoint("austen-gpt2").state_dict()


@pytest.mark.parametrize(
    "file", ["../model.safetensors", "/etc/passwd", "a/b.safetensors", "a\\b.safetensors", "..", ".safetensors", ""]
)
def test_a_shard_is_a_file_in_the_checkpoints_own_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, file: str
) -> None:
    monkeypatch.setattr(registry, "SHIPPED", tmp_path)
    write_tiny_gpt2(tmp_path / "austen-gpt2", "shipped")
    index = tmp_path / "austen-gpt2/model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"wte.weight": file}}))
    with pytest.raises(GraderError, match="no weight file in its own folder"):
        checkpoints.load_checkpoint("austen-gpt2").state_dict()


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": 3}'])
def test_an_index_that_is_none_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str) -> None:
    monkeypatch.setattr(registry, "SHIPPED", tmp_path)
    write_tiny_gpt2(tmp_path / "austen-gpt2", "shipped")
    (tmp_path / "austen-gpt2/model.safetensors.index.json").write_text(content)
    with pytest.raises(GraderError, match="is no index of weight files"):
        checkpoints.load_checkpoint("austen-gpt2").state_dict()


# Golden generations


@pytest.fixture
def recorded(checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Checkpoint:
    monkeypatch.setattr(registry.Entry, "golden_file", tmp_path / "golden.json")
    generated.record_golden(checkpoint, ["It is a truth", "the wheel"], 16)
    return checkpoint


def test_a_recording_is_transformers_own_greedy_text(recorded: Checkpoint) -> None:
    model = AutoModelForCausalLM.from_pretrained(recorded.folder, dtype=torch.float32, attn_implementation="eager")
    for found in recorded.goldens:
        ids = list(found.prompt_ids or ())
        assert ids == tiny_tokenizer().encode(found.prompt).ids
        for want, step in zip(found.new_ids or (), found.steps, strict=True):
            logits = model(torch.tensor([ids])).logits[0, -1]
            top = logits.topk(2)
            assert top.indices.tolist() == [want, step.runner_up]
            assert step.margin == pytest.approx((top.values[0] - top.values[1]).item(), abs=1e-3)
            ids.append(want)
        assert "transformers" in found.origin and "torch" in found.origin


def test_recording_twice_gives_the_same_bytes(recorded: Checkpoint) -> None:
    first = recorded.entry.golden_file.read_bytes()
    generated.record_golden(recorded, ["It is a truth", "the wheel"], 16)
    assert recorded.entry.golden_file.read_bytes() == first


def test_each_prompt_can_have_a_length_of_its_own(recorded: Checkpoint) -> None:
    generated.record_golden(recorded, ["It is a truth", "the wheel"], [16, 3])
    assert [found.n_tokens for found in recorded.goldens] == [16, 3]
    known = registry._parse("x", {"description": "", "licence": "", "files": {}, "record": {"prompts": ["a", "b"]}})
    assert known.record_tokens == (64, 64)


def test_a_prompt_at_which_the_reference_is_undecided_is_refused(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(registry.Entry, "golden_file", tmp_path / "golden.json")
    monkeypatch.setattr(golden.Step, "near_tie", lambda self, relative: True)
    with pytest.raises(GraderError, match="Choose another prompt"):
        generated.record_golden(checkpoint, ["It is"], 4)
    assert not (tmp_path / "golden.json").exists()


def test_a_near_tie_is_closer_than_two_right_logits_can_move() -> None:
    step = golden.Step(token=1, runner_up=2, margin=1e-3, logit=-100.0, rms=100.0)
    assert step.near_tie(5e-5)  # 2 * 5e-5 * 200 = 0.02
    assert not golden.Step(token=1, runner_up=2, margin=0.03, logit=-100.0, rms=100.0).near_tie(5e-5)


# What ships


def test_austen_gpt2_ships_with_three_generations_of_64_tokens() -> None:
    austen = checkpoints.load_checkpoint("austen-gpt2")
    assert austen.source == "shipped"
    assert sum(path.stat().st_size for path in austen.folder.iterdir()) <= 5_000_000
    assert [len(found.new_ids or ()) for found in austen.goldens] == [64, 64, 64]
    assert [found.prompt for found in austen.goldens] == list(austen.entry.record_prompts)
    assert sum(tensor.numel() for tensor in austen.state_dict().values()) == austen.entry.parameters


def test_austen_gpt2s_generations_are_what_transformers_writes() -> None:
    austen = checkpoints.load_checkpoint("austen-gpt2")
    reference = AutoModelForCausalLM.from_pretrained(austen.folder, dtype=torch.float32)
    for found in austen.goldens:
        ids = torch.tensor([found.prompt_ids])
        done = reference.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=64, do_sample=False)
        assert tuple(done[0, ids.shape[1] :].tolist()) == found.new_ids


def test_what_counts_as_a_near_tie_is_well_above_what_rounding_does() -> None:
    austen = checkpoints.load_checkpoint("austen-gpt2")
    found = austen.goldens[0]
    ids = torch.tensor([[*(found.prompt_ids or ()), *(found.new_ids or ())]])
    variants = [("eager", torch.float32), ("sdpa", torch.float32), ("eager", torch.float64)]
    logits = [
        AutoModelForCausalLM.from_pretrained(austen.folder, dtype=dtype, attn_implementation=attention)(ids).logits
        for attention, dtype in variants
    ]
    rounding = max((one.double() - logits[-1]).abs().max().item() for one in logits[:-1])
    relative = tolerance_for(torch.float32).relative
    smallest = min(2 * relative * (abs(step.logit) + step.rms) for step in found.steps)
    assert 20 * rounding < smallest
