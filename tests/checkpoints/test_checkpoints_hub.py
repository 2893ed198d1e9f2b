"""Weights from the hub: the real client against a hub on this machine (tests/support/hub.py)."""

import errno
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hub import REVISION, Hub, write_tiny_gpt2
from huggingface_hub import constants, file_download
from safetensors.torch import load_file
from solved import every_lesson
from transformers import AutoModelForCausalLM, GPT2Model

from grader import checkpoints
from grader.authoring.kit.solved import Solved
from grader.checkpoints import hub as hub_client
from grader.checkpoints import registry
from grader.checkpoints.hub import sha256
from grader.errors import GraderError
from grader.lessons.exercise import Exercise
from grader.recordings.tasks import configured
from grader.tolerance import agree

REPO, WEIGHTS = "tiny/gpt2", "model.safetensors"
CHUNK = 1000  # bytes that the client takes at a time: 10 MB outside of tests
ENTRY = """
description = "tiny"
licence = "MIT"
gated = {gated}
drop = ["h.*.attn.bias"]
[hub]
repo = "{repo}"
revision = "{revision}"
[files."config.json"]
[files."tokenizer.json"]
"""


def add_entry(folder: Path, name: str, *, repo: str = REPO, revision: str = REVISION, gated: str = "false") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(ENTRY.format(repo=repo, revision=revision, gated=gated) + f'[files."{WEIGHTS}"]\n')
    return path


@pytest.fixture(scope="session")
def served(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("served")
    write_tiny_gpt2(folder / REPO, "hub")
    write_tiny_gpt2(folder / "tiny/sharded", "sharded")
    return folder


@pytest.fixture
def hub(served: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A running hub that the client talks to, with an empty cache and no pauses between retries."""
    entries = tmp_path / "registry"
    entries.mkdir()
    add_entry(entries, "tiny")
    with Hub(served) as running:
        monkeypatch.setattr(registry, "REGISTRY", entries)
        monkeypatch.setattr(constants, "ENDPOINT", running.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", running.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", CHUNK)
        monkeypatch.setattr(file_download, "time", type("Time", (), {"sleep": staticmethod(lambda seconds: None)}))
        yield running


def resumed_at(hub: Hub) -> str:
    """The Range header of a download that goes on after half of the file; whole chunks are kept."""
    half = (hub.folder / REPO / WEIGHTS).stat().st_size // 2
    return f"bytes={half // CHUNK * CHUNK}-"


def cached_blobs() -> list[Path]:
    return sorted(Path(constants.HF_HUB_CACHE).glob("models--*/blobs/*"))


def complaint(name: str = "tiny") -> str:
    with pytest.raises(checkpoints.Unavailable) as error:
        checkpoints.get(name)
    message = str(error.value)
    assert len(message) < 300 and "\n" not in message
    return message


def test_a_complete_download_loads_strictly_into_a_model_with_the_hubs_names(hub: Hub) -> None:
    checkpoint = checkpoints.get("tiny")
    model = GPT2Model.from_pretrained(hub.folder / REPO, dtype=torch.float32)
    wanted = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    for parameter in model.parameters():
        torch.nn.init.zeros_(parameter)
    checkpoint.load_into(model)
    assert checkpoint.source == "hub"
    assert all(torch.equal(tensor, wanted[name]) for name, tensor in model.state_dict().items())


def test_only_the_mask_buffers_are_dropped(hub: Hub) -> None:
    on_disk = load_file(hub.folder / REPO / WEIGHTS)
    kept = checkpoints.get("tiny").state_dict()
    assert set(on_disk) - set(kept) == {"h.0.attn.bias", "h.1.attn.bias"}


def test_the_second_time_nothing_is_asked_of_the_hub(hub: Hub) -> None:
    checkpoints.get("tiny")
    before = len(hub.requests)
    assert checkpoints.load_checkpoint("tiny").source == "cached"
    assert len(hub.requests) == before


def test_the_cache_is_the_clients_own(hub: Hub) -> None:
    checkpoint = checkpoints.get("tiny")
    assert checkpoint.folder.parts[-3:] == ("models--tiny--gpt2", "snapshots", REVISION)
    assert not list(Path(constants.HF_HUB_CACHE).rglob("*.incomplete"))


def test_an_interrupted_download_goes_on_where_it_stopped(hub: Hub) -> None:
    hub.modes[WEIGHTS] = "interrupted"
    checkpoints.get("tiny")
    assert hub.gets(f"{REPO}/{WEIGHTS}") == [None, resumed_at(hub)]


def test_a_truncated_download_is_kept_and_a_later_one_goes_on_from_it(hub: Hub) -> None:
    hub.modes[WEIGHTS] = "truncated"
    message = complaint()
    assert "broke off" in message and "grader weights get tiny" in message
    hub.modes.clear()
    hub.requests.clear()
    checkpoints.get("tiny")
    assert hub.gets(f"{REPO}/{WEIGHTS}") == [resumed_at(hub)]


def test_a_download_that_ends_early_without_an_error_is_not_accepted(hub: Hub) -> None:
    hub.modes[WEIGHTS] = "short"
    assert "broke off" in complaint()
    assert checkpoints.load_checkpoint("tiny", optional=True) is None


def test_wrong_bytes_are_deleted_and_never_reach_the_cache(hub: Hub) -> None:
    hub.modes[WEIGHTS] = "wrong"
    message = complaint()
    assert "damaged" in message and "deleted" in message
    assert sha256(hub.folder / REPO / WEIGHTS) not in [path.name.split(".")[0] for path in cached_blobs()]
    hub.modes.clear()
    checkpoints.get("tiny")


def test_the_registrys_own_checksum_is_what_counts(hub: Hub) -> None:
    with (registry.REGISTRY / "tiny.toml").open("a") as entry:
        entry.write(f'sha256 = "{"0" * 64}"\n')
    assert "checksum" in complaint()


def test_a_file_of_another_size_is_refused_before_it_is_downloaded(hub: Hub) -> None:
    with (registry.REGISTRY / "tiny.toml").open("a") as entry:
        entry.write("size = 7\n")
    assert "not 7" in complaint()
    assert not hub.gets(f"{REPO}/{WEIGHTS}")


def test_a_name_that_leads_out_of_the_cache_is_refused(hub: Hub, tmp_path: Path) -> None:
    hub.modes["config.json"] = "escaping"
    message = complaint()
    assert "no checksum" in message and "'../../../../pwned'" in message
    assert not list(tmp_path.rglob("*pwned*")) and not list(tmp_path.parent.glob("*pwned*"))


def test_a_small_file_is_verified_by_gits_checksum(hub: Hub) -> None:
    hub.modes["tokenizer.json"] = "changed"
    message = complaint()
    assert "tokenizer.json" in message and "damaged" in message
    assert not list(Path(constants.HF_HUB_CACHE).rglob("tokenizer.json"))


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        ("missing", "has no config.json at revision 0123456789ab"),
        ("no_revision", "no longer has revision 0123456789ab"),
        ("no_repo", "has no tiny/gpt2, or hides it"),
        ("bad_token", "did not accept your token"),
        ("broken", "answered with error 500"),
    ],
)
def test_refusals_say_what_to_do(hub: Hub, mode: str, words: str) -> None:
    hub.modes["*"] = mode
    assert words in complaint()


def test_a_repository_that_does_not_exist(hub: Hub) -> None:
    add_entry(registry.REGISTRY, "lost", repo="tiny/lost")
    assert "has no tiny/lost" in complaint("lost")


def test_gated_without_a_token_asks_for_the_licence_and_a_login(hub: Hub) -> None:
    hub.modes["*"] = "gated"
    message = complaint()
    assert "Accept its licence" in message and "hf auth login" in message and f"{hub.url}/{REPO}" in message


def test_gated_with_a_token_asks_for_the_licence_only(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.modes["*"] = "gated"
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody")
    message = complaint()
    assert "not been let in" in message and "login" not in message


def test_a_token_is_not_sent_to_the_address_of_large_files(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_somebody")
    checkpoints.get("tiny")


def test_a_hub_that_stops_answering_is_given_up_and_the_rest_fetched_later(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.1)
    hub.modes[WEIGHTS] = "slow"
    assert "too slow" in complaint()
    hub.modes.clear()
    checkpoints.get("tiny")
    assert hub.gets(f"{REPO}/{WEIGHTS}")[-1] == resumed_at(hub)


def test_a_full_disk_is_noticed_before_anything_is_downloaded(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 100})
    monkeypatch.setattr(hub_client.shutil, "disk_usage", lambda path: usage)
    message = complaint()
    assert "no room" in message and "HF_HOME" in message
    assert not hub.gets(f"{REPO}/{WEIGHTS}")


def test_a_disk_that_fills_up_on_the_way(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(hub_client, "http_get", full)
    assert "no room" in complaint()


def test_without_a_network_one_line_says_so_within_seconds(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as closed:  # a port on which nobody listens
        closed.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.setattr(constants, "ENDPOINT", address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}")
    began = time.monotonic()
    assert checkpoints.load_checkpoint("tiny", optional=True) is None
    assert time.monotonic() - began < 60  # and not as long as a client that tries again and again
    printed = capfd.readouterr()
    assert printed.err == ""
    assert printed.out.startswith("Skipped: tiny is not on this machine") and printed.out.count("\n") == 1


def test_a_hub_that_never_answers_is_given_up_after_seconds(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_client, "METADATA_TIMEOUT", 0.2)
    with socket.socket() as silent:  # accepts connections and says nothing
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        address = f"http://127.0.0.1:{silent.getsockname()[1]}"
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", address + "/{repo_id}/resolve/{revision}/{filename}"
        )
        began = time.monotonic()
        assert "too slow" in complaint()
        assert time.monotonic() - began < 60


def test_the_clients_offline_switch_is_obeyed(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert "HF_HUB_OFFLINE" in complaint()
    assert hub.requests == []


def test_offline_a_cached_checkpoint_still_loads(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    checkpoints.get("tiny")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert checkpoints.load_checkpoint("tiny").source == "cached"


def test_a_file_damaged_in_the_cache_is_found_by_get_and_deleted(hub: Hub) -> None:
    with (registry.REGISTRY / "tiny.toml").open("a") as entry:
        entry.write(f'sha256 = "{sha256(hub.folder / REPO / WEIGHTS)}"\n')
    weights = checkpoints.get("tiny").folder / WEIGHTS
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.resolve().write_bytes(content)
    assert "checksum" in complaint()
    assert not weights.exists()
    checkpoints.get("tiny")


def test_without_a_checksum_in_the_registry_the_cached_files_own_name_tells(hub: Hub) -> None:
    for name in (WEIGHTS, "config.json"):
        path = checkpoints.get("tiny").folder / name
        content = bytearray(path.read_bytes())
        content[-1] ^= 1
        path.resolve().write_bytes(content)
        message = complaint()
        assert name in message and "checksum" in message and not path.exists()


def test_a_cached_file_of_the_wrong_size_is_found_when_it_is_loaded(
    hub: Hub, capfd: pytest.CaptureFixture[str]
) -> None:
    size = (hub.folder / REPO / WEIGHTS).stat().st_size
    with (registry.REGISTRY / "tiny.toml").open("a") as entry:
        entry.write(f"size = {size}\n")
    weights = checkpoints.get("tiny").folder / WEIGHTS
    weights.resolve().write_bytes(weights.read_bytes()[:-1])
    assert checkpoints.load_checkpoint("tiny", optional=True) is None
    assert f"has {size - 1:,} bytes instead of {size:,}. It was deleted; run: grader weights get tiny" in (
        capfd.readouterr().out
    )
    checkpoints.get("tiny")


def test_a_sharded_checkpoint_loads_as_one(hub: Hub) -> None:
    shards = "".join(f'[files."model-0000{i}-of-00002.safetensors"]\n' for i in (1, 2))
    entry = ENTRY.format(repo="tiny/sharded", revision=REVISION, gated="false")
    (registry.REGISTRY / "sharded.toml").write_text(entry + '[files."model.safetensors.index.json"]\n' + shards)
    whole, sharded = checkpoints.get("tiny").state_dict(), checkpoints.get("sharded").state_dict()
    assert whole.keys() == sharded.keys()
    assert all(torch.equal(whole[name], sharded[name]) for name in whole)


WHOLE_MODELS = [  # of every lesson that builds one as the hub has it
    pytest.param(lesson, exercise, id=exercise.name)
    for lesson in every_lesson()
    for exercise in lesson.exercises.values()
    if exercise.solution == "CausalLM"
]


@pytest.mark.parametrize(("solved", "small"), WHOLE_MODELS)
def test_a_lessons_model_in_shards_comes_from_the_hub_and_computes_what_transformers_does(
    solved: Solved, small: Exercise, hub: Hub
) -> None:
    """Qwen3 0.6B and Gemma 3 270M-it as the hub has them, in bfloat16, only smaller."""
    lesson = solved.name
    reference = small.reference(**configured(dict(small.cases[0].build)))  # type: ignore[arg-type]
    for parameter in reference.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    folder = hub.folder / f"tiny/{lesson}"
    reference.to(torch.bfloat16).save_pretrained(folder, max_shard_size="8KB")
    shutil.copy(hub.folder / REPO / "tokenizer.json", folder)
    files = [path.name for path in folder.glob("model*")]
    assert "model.safetensors.index.json" in files and len(files) > 3
    lines = ENTRY.format(repo=f"tiny/{lesson}", revision=REVISION, gated="false")
    (registry.REGISTRY / "small.toml").write_text(lines + "".join(f'[files."{name}"]\n' for name in files))
    checkpoint = checkpoints.get("small")
    own = solved.solutions["CausalLM"](checkpoint.config).eval()
    checkpoint.load_into(own)
    theirs = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    ids = torch.randint(checkpoint.config.vocab_size, (2, 9))
    with torch.no_grad():
        assert agree(own(ids), theirs(input_ids=ids, use_cache=False).logits)


def test_from_the_environment_alone_in_a_fresh_process(hub: Hub, tmp_path: Path) -> None:
    """As a person uses it: HF_ENDPOINT and HF_HOME, the client's real pauses, a download that breaks off once."""
    hub.modes[WEIGHTS] = "interrupted"
    program = (
        "import sys, pathlib; from grader.checkpoints import registry, sources;"
        "registry.REGISTRY = pathlib.Path(sys.argv[1]);"
        "print(sources.require(registry.entry('tiny'), True)[1])"
    )
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home"), "HF_HUB_OFFLINE": "0"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(registry.REGISTRY)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert (done.returncode, done.stderr) == (0, "")
    folder = Path(done.stdout.strip())
    assert folder.is_relative_to(tmp_path / "home")
    assert sha256(folder / WEIGHTS) == sha256(hub.folder / REPO / WEIGHTS)


def test_an_unknown_name_suggests_the_closest(hub: Hub) -> None:
    with pytest.raises(GraderError, match="Did you mean `tiny`"):
        checkpoints.get("tinny")
