"""`grader export-model`: the folder that the hub has of a model, loaded by transformers, compared, and uploaded."""

import json
import resource
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from hub import Hub
from huggingface_hub import constants
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from grader.checkpoints import checkpoint_of, entry, load_checkpoint, registry
from grader.checkpoints.experts import FUSED, apart, together
from grader.checkpoints.exported import PROBE, export_model
from grader.checkpoints.upload import upload
from grader.cli.hub import export_model as command
from grader.errors import GraderError
from grader.learning.own import agreement, model_with
from grader.learning.talk import Sampling, talk_with
from grader.porting.command import CompareOptions, TraceOptions, compare, trace

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = sorted(path.name for path in registry.SHIPPED.iterdir())
FILES = {
    *("README.md", "config.json", "generation_config.json"),
    *("model.safetensors", "tokenizer.json", "tokenizer_config.json"),
}
PROGRAMS = {
    "austen-gpt2": "01-gpt2/gpt2.ipynb:GPT2",
    "austen-qwen3": "03-qwen3/qwen3.ipynb:CausalLM",
    "austen-gemma3": "04-gemma3/gemma3.ipynb:CausalLM",
    "austen-mla": "05-mla/mla.ipynb:CausalLM",
    "austen-moe": "07-moe/moe.ipynb:CausalLM",
    "austen-deepseek": "08-sparse-attention/sparse_attention.ipynb:CausalLM",
    "austen-qwen3.5": "10-linear-attention/linear_attention.ipynb:CausalLM",
    "austen-gptoss": "11-new-models/new_models.ipynb:OssLM",
    "sums-qwen3": "03-qwen3/qwen3.ipynb:CausalLM",
    "austen-tools": "03-qwen3/qwen3.ipynb:CausalLM",
}


def program(name: str) -> str:
    return str(ROOT / "solutions" / PROGRAMS[name])


@pytest.fixture
def own_folder(tmp_path: Path) -> Path:
    """A model as a learner's program may save it: weights by name, a config, a tokenizer, and nothing else."""
    folder = tmp_path / "own"
    folder.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        shutil.copy(registry.SHIPPED / "austen-qwen3" / name, folder)
    return folder


def changed(folder: Path, change: Callable[[dict[str, torch.Tensor]], None]) -> None:
    """Change the weights in a folder."""
    state = load_file(folder / "model.safetensors")
    change(state)
    save_file(state, folder / "model.safetensors")


def refused(source: Path | str, to: Path, **options: Any) -> str:
    with pytest.raises(GraderError) as error:
        export_model(checkpoint_of(source), to, **options)
    return str(error.value)


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_model_is_exported_and_writes_the_same_text(name: str, tmp_path: Path) -> None:
    folder = export_model(load_checkpoint(name), tmp_path / name).folder
    template = {"chat_template.jinja"} & {path.name for path in (registry.SHIPPED / name).iterdir()}
    assert {path.name for path in folder.iterdir()} == FILES | template
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    model.generation_config.eos_token_id = None
    tokenizer = AutoTokenizer.from_pretrained(folder)
    for golden in entry(name).goldens:
        ids = tokenizer(golden.prompt, return_tensors="pt")
        assert golden.prompt_ids and golden.new_ids
        assert ids.input_ids[0].tolist() == list(golden.prompt_ids)
        length = len(golden.new_ids)
        new = model.generate(**ids, max_new_tokens=length, do_sample=False, pad_token_id=0)[0, -length:]
        assert new.tolist() == list(golden.new_ids)


@pytest.mark.parametrize("name", SHIPPED)
def test_its_files_hold_the_weights_under_their_names_and_the_tokenizer_as_it_was(name: str, tmp_path: Path) -> None:
    folder = export_model(load_checkpoint(name), tmp_path / name).folder
    there, here = (load_file(place / "model.safetensors") for place in (folder, registry.SHIPPED / name))
    joined = [key for key in here if key.endswith(FUSED) and f"{key}_bias" not in here]
    assert (there.keys() == here.keys()) is not bool(joined)
    there = together(there)
    assert there.keys() == here.keys()
    assert all(torch.equal(there[key], here[key]) and there[key].dtype == here[key].dtype for key in here)
    assert (folder / "tokenizer.json").read_bytes() == (registry.SHIPPED / name / "tokenizer.json").read_bytes()
    assert GenerationConfig.from_pretrained(folder).eos_token_id == load_checkpoint(name).config.eos_token_id


@pytest.mark.slow
@pytest.mark.parametrize("name", SHIPPED)
def test_a_program_of_the_course_agrees_with_the_folder_that_it_was_exported_to(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command(program(name), tmp_path / "out", weights=name)
    assert "computes what your program does" in capsys.readouterr().out
    trace(TraceOptions(str(tmp_path / "out"), weights=True, output=tmp_path / "trace.safetensors"))
    assert compare(CompareOptions(program(name), tmp_path / "trace.safetensors"))


def test_every_shipped_model_has_a_program() -> None:
    assert sorted(PROGRAMS) == SHIPPED


def test_a_folder_of_ones_own_is_exported_as_a_checkpoint_is(own_folder: Path, tmp_path: Path) -> None:
    exported = export_model(checkpoint_of(own_folder), tmp_path / "new" / "mine", licence="mit")
    assert (exported.kind, exported.parameters, exported.dtype) == ("Qwen3ForCausalLM", 2_066_432, "bfloat16")
    card = (exported.folder / "README.md").read_text()
    assert card.startswith("---\nlibrary_name: transformers\n") and "license: mit\n" in card and "# own\n" in card
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["mine"]  # nothing is left of the work


def test_the_card_says_what_the_model_was_trained_on(tmp_path: Path) -> None:
    card = (export_model(load_checkpoint("austen-gpt2"), tmp_path / "out").folder / "README.md").read_text()
    for part in ("license: apache-2.0", "five of Austen's novels", "2,222,208", "| training tokens | 995,143 |"):
        assert part in card


def test_experts_are_one_by_one_as_on_the_hub_and_a_program_of_the_course_loads_them(tmp_path: Path) -> None:
    folder = export_model(load_checkpoint("austen-moe"), tmp_path / "out").folder
    names = load_file(folder / "model.safetensors").keys()
    assert "model.layers.0.mlp.experts.7.gate_proj.weight" in names and not any("gate_up" in name for name in names)
    state = load_checkpoint("austen-moe").state_dict()
    loaded = model_with(program("austen-moe"), checkpoint_of(folder)).state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())


def test_taking_experts_apart_and_together_changes_nothing() -> None:
    state = {"a.mlp.experts.gate_up_proj": torch.randn(12, 6, 5), "a.mlp.experts.down_proj": torch.randn(12, 5, 3)}
    state |= {"a.mlp.gate.weight": torch.randn(12, 5)}
    assert len(apart(state)) == 12 * 3 + 1
    again = together(apart(state))
    assert again.keys() == state.keys() and all(torch.equal(again[name], state[name]) for name in state)


def test_one_can_talk_to_an_exported_model(tmp_path: Path) -> None:
    export_model(load_checkpoint("austen-gpt2"), tmp_path / "out")
    message = {"role": "user", "content": "It is a truth"}
    said = [
        [*talk_with(program("austen-gpt2"), weights).reply([message], Sampling(0, longest=6))][-1].text
        for weights in (str(tmp_path / "out"), "austen-gpt2")
    ]
    assert said[0] == said[1]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_weights_are_converted_where_a_dtype_is_asked_for(dtype: str, tmp_path: Path) -> None:
    folder = export_model(load_checkpoint("austen-qwen3"), tmp_path / "out", dtype=dtype).folder
    assert {str(t.dtype) for t in load_file(folder / "model.safetensors").values()} == {f"torch.{dtype}"}
    assert AutoModelForCausalLM.from_pretrained(folder).dtype == getattr(torch, dtype)


def test_a_tied_head_is_stored_once(own_folder: Path, tmp_path: Path) -> None:
    changed(own_folder, lambda state: state.update({"lm_head.weight": state["model.embed_tokens.weight"].clone()}))
    folder = export_model(checkpoint_of(own_folder), tmp_path / "out").folder
    assert "lm_head.weight" not in load_file(folder / "model.safetensors")


def test_a_head_of_its_own_under_a_config_that_ties_it_is_refused(own_folder: Path, tmp_path: Path) -> None:
    changed(own_folder, lambda state: state.update({"lm_head.weight": state["model.embed_tokens.weight"] * 2}))
    assert "Set tie_word_embeddings to false" in refused(own_folder, tmp_path / "out")


def test_a_tokenizer_that_transformers_would_swap_keeps_its_ids(own_folder: Path, tmp_path: Path) -> None:
    """Named Qwen2Tokenizer, transformers splits a text as Qwen does, and not as tokenizer.json says."""
    tokenizer = json.loads((own_folder / "tokenizer.json").read_text())
    split = {"type": "Split", "pattern": {"Regex": r"\d\d|."}, "behavior": "Isolated", "invert": False}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": False}
    tokenizer["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": [split, byte_level]}
    (own_folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (own_folder / "tokenizer_config.json").write_text('{"tokenizer_class": "Qwen2Tokenizer"}')
    right = Tokenizer.from_file(str(own_folder / "tokenizer.json")).encode(PROBE).ids
    assert AutoTokenizer.from_pretrained(own_folder)(PROBE)["input_ids"] != right
    folder = export_model(checkpoint_of(own_folder), tmp_path / "out").folder
    assert AutoTokenizer.from_pretrained(folder)(PROBE)["input_ids"] == right


def test_a_model_that_chats_ends_with_what_its_template_ends_an_answer_with(own_folder: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.from_file(str(own_folder / "tokenizer.json"))
    tokenizer.add_special_tokens(["<|im_end|>"])
    tokenizer.save(str(own_folder / "tokenizer.json"))
    template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}<|im_end|>\n{% endfor %}"
    (own_folder / "chat_template.jinja").write_text(template)
    folder = export_model(checkpoint_of(own_folder), tmp_path / "out").folder
    assert GenerationConfig.from_pretrained(folder).eos_token_id == [0, tokenizer.token_to_id("<|im_end|>")]
    assert AutoTokenizer.from_pretrained(folder).chat_template == template


def test_weights_that_lack_one_or_have_another_name_are_refused(own_folder: Path, tmp_path: Path) -> None:
    def rename(state: dict[str, torch.Tensor]) -> None:
        for layer in range(2):
            state[f"model.layers.{layer}.self_attn.wq.weight"] = state.pop(
                f"model.layers.{layer}.self_attn.q_proj.weight"
            )

    changed(own_folder, rename)
    said = refused(own_folder, tmp_path / "out")
    assert "`model.layers.*.self_attn.q_proj.weight` is missing: transformers would draw it at random" in said
    assert "`model.layers.*.self_attn.wq.weight` is nothing that transformers' model has" in said
    assert not (tmp_path / "out").exists()


def test_a_program_that_computes_something_else_is_refused(own_folder: Path, tmp_path: Path) -> None:
    """Rows in another order load by name and shape: only the logits tell."""
    checkpoint = checkpoint_of(own_folder)
    model = model_with(program("austen-qwen3"), checkpoint)
    queries = model.get_submodule("model.layers.1.self_attn.q_proj").weight
    queries.data = queries.data.flip(0)
    said = refused(own_folder, tmp_path / "out", agrees=agreement(model, "mine.py:CausalLM", checkpoint))
    assert "computes other logits" in said and "grader compare mine.py:CausalLM trace.safetensors" in said
    assert not any(path.name.startswith(".out") for path in tmp_path.iterdir())


def test_a_folder_in_use_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    assert "nothing in it is overwritten" in refused("austen-qwen3", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_an_empty_folder_is_used(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert export_model(load_checkpoint("austen-gpt2"), tmp_path / "out").folder == tmp_path / "out"


@pytest.mark.parametrize("name", ["config.json", "model.safetensors", "tokenizer.json"])
def test_a_folder_that_is_no_whole_model_is_named_with_what_it_lacks(own_folder: Path, name: str) -> None:
    (own_folder / name).unlink()
    with pytest.raises(GraderError, match=f"holds no whole model: it has no {name}"):
        checkpoint_of(own_folder)


def test_a_name_that_is_neither_is_told_from_the_registrys() -> None:
    with pytest.raises(GraderError, match="Did you mean `austen-qwen3`"):
        checkpoint_of("austen-qwen")


def test_a_full_disk_leaves_nothing_behind(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        said = refused("austen-qwen3", tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "can't be written" in said and "Nothing was kept" in said
    assert not list(tmp_path.iterdir())


def test_an_unknown_dtype_is_refused_with_those_that_there_are(tmp_path: Path) -> None:
    assert "float32, bfloat16, float16" in refused("austen-qwen3", tmp_path / "out", dtype="int4")


def test_a_program_needs_weights_and_weights_need_none(tmp_path: Path) -> None:
    with pytest.raises(GraderError, match="Say which weights it has"):
        command(program("austen-gpt2"), tmp_path / "out")
    with pytest.raises(GraderError, match="--weights is for a program"):
        command("austen-gpt2", tmp_path / "out", weights="austen-qwen3")


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A running hub that the client talks to, with a token."""
    (tmp_path / "served").mkdir()
    with Hub(tmp_path / "served") as running:
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", running.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setenv("HF_TOKEN", "hf_" + "a" * 34)
        yield running


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_model(load_checkpoint("austen-gpt2"), tmp_path_factory.mktemp("exported") / "out").folder


@pytest.mark.parametrize("public", [False, True])
def test_an_upload_brings_every_file_in_one_commit(hub: Hub, exported: Path, public: bool) -> None:
    assert upload(exported, "jane/austen", public) == f"{hub.url}/jane/austen"
    made, commit = hub.uploads
    assert (made.get("visibility") == "private" or made.get("private") is True) is not public
    assert commit == {"commit": "jane/austen", "files": sorted(FILES)}
    there = hub.folder / "jane" / "austen"
    assert all((there / name).read_bytes() == (exported / name).read_bytes() for name in FILES)


def test_a_second_upload_is_a_second_commit(hub: Hub, exported: Path) -> None:
    upload(exported, "jane/austen")
    upload(exported, "jane/austen")
    assert [key for sent in hub.uploads for key in sent if key == "commit"] == ["commit", "commit"]


def test_the_command_exports_and_uploads(hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command("austen-gpt2", tmp_path / "out", upload="jane/austen")
    assert f"uploaded: {hub.url}/jane/austen" in capsys.readouterr().out


def complaint(folder: Path, repository: str = "jane/austen") -> str:
    with pytest.raises(GraderError) as error:
        upload(folder, repository)
    return str(error.value)


@pytest.mark.parametrize(
    ("mode", "said"),
    [("bad_token", "Run: hf auth login"), ("read_only", "may not write to jane/austen"), ("broken", "with error 500")],
)
def test_a_refused_upload_says_why_and_that_the_folder_is_complete(
    hub: Hub, exported: Path, mode: str, said: str
) -> None:
    hub.modes["*"] = mode
    assert said in complaint(exported)
    assert f"hf upload jane/austen {exported}" in complaint(exported)


def test_an_upload_without_a_token_says_how_to_get_one(
    hub: Hub, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HF_TOKEN")
    assert "Run: hf auth login" in complaint(exported)


def test_an_upload_without_a_network_or_to_no_name_is_refused(
    hub: Hub, exported: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "is not OWNER/NAME" in complaint(exported, "austen")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE=1 forbids uploading" in complaint(exported)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    assert "can't be reached" in complaint(exported)
