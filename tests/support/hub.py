"""A hub on this machine: a web server that answers huggingface_hub's client as the real one does.

    with Hub(folder) as hub:                    # folder/<repo>/<files>
        hub.modes["model.safetensors"] = "truncated"

Small files answer at once; ``*.safetensors`` redirect to a second address (the real hub's CDN), carrying the
commit, the size and the SHA-256 in headers, as files in its large-file storage do. A mode, set for one file
name or for every file ("*"), makes it misbehave:

    interrupted   closes the connection halfway, once; then resumes where it is asked to
    truncated     closes the connection halfway, every time, and never sends the rest
    short         says it is complete after half of it
    wrong         sends bytes of the right number and the wrong content
    slow          stops answering halfway
    missing       404, EntryNotFound
    no_revision   404, RevisionNotFound
    no_repo       401, RepoNotFound, which is how the hub hides private repositories and absent ones
    gated         401 without a token; 403 with one whose owner has not accepted the licence; GatedRepo both times
    bad_token     401, "Invalid credentials in Authorization header"
    broken        500
    escaping      names a small file by a path that leads out of the cache
    changed       sends a small file's bytes with one of them changed

A commit of an upload is written into the folder, and `uploads` lists what was sent. For an upload the mode "*" can be

    read_only     403, a token that may not write
    bad_token, broken, as above
"""

import base64
import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

REVISION = "0123456789abcdef0123456789abcdef01234567"
READ_ONLY = (403, "", "Forbidden: you need write access")
ERRORS = {
    "missing": (404, "EntryNotFound", "Entry not found"),
    "no_revision": (404, "RevisionNotFound", "Invalid rev id"),
    "no_repo": (401, "RepoNotFound", "Invalid username or password."),
    "bad_token": (401, "", "Invalid credentials in Authorization header"),
    "broken": (500, "", "Internal Server Error"),
}


class Hub:
    """The server, from ``with`` to its end; `requests` lists what was asked for as (method, path, Range header)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.modes: dict[str, str] = {}
        self.requests: list[tuple[str, str, str | None]] = []
        self.interrupted: set[str] = set()
        self.uploads: list[dict[str, Any]] = []  # of each request its header, and the files of a commit
        self.released = threading.Event()

    def __enter__(self) -> "Hub":
        hub = self

        class Handler(_Handler):
            pass

        Handler.hub = hub
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self.server.shutdown()
        self.server.server_close()

    @property
    def url(self) -> str:
        """What HF_ENDPOINT must be."""
        return f"http://127.0.0.1:{self.server.server_port}"

    @property
    def cdn(self) -> str:
        """The address of large files: another host, to which the client must not send its token."""
        return f"http://localhost:{self.server.server_port}/cdn"

    def gets(self, name: str) -> list[str | None]:
        """The Range headers with which a large file's content was asked for, in order."""
        return [asked for method, path, asked in self.requests if method == "GET" and path == f"/cdn/{name}"]


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def do_POST(self) -> None:
        """Make a repository, say how files are sent (all in the commit), take a commit."""
        self.hub.requests.append((self.command, self.path, None))
        body = self._body()
        mode = self.hub.modes.get("*", "")
        if mode in ERRORS or mode == "read_only":
            self._refuse(*(READ_ONLY if mode == "read_only" else ERRORS[mode]))
        elif not self.headers.get("Authorization"):
            self._refuse(*ERRORS["bad_token"])
        elif self.path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            self.hub.uploads.append(asked)
            exists = (self.hub.folder / name).exists()
            (self.hub.folder / name).mkdir(parents=True, exist_ok=True)
            self._json(409 if exists else 200, {"url": f"{self.hub.url}/{name}", "id": name})
        elif self.path.startswith("/api/validate-yaml"):
            self._json(200, {"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = [{"path": file["path"], "uploadMode": "regular"} for file in json.loads(body)["files"]]
            self._json(200, {"files": [{**file, "shouldIgnore": False} for file in files]})
        else:
            self._take_commit(body)

    def _take_commit(self, body: bytes) -> None:
        repo = self.path.removeprefix("/api/models/").partition("/commit/")[0]
        lines = [json.loads(line) for line in body.splitlines()]
        files = [line["value"] for line in lines if line["key"] == "file"]
        for file in files:
            (self.hub.folder / repo / file["path"]).write_bytes(base64.b64decode(file["content"]))
        self.hub.uploads.append({"commit": repo, "files": sorted(file["path"] for file in files)})
        url = f"{self.hub.url}/{repo}/commit/{REVISION}"
        self._json(200, {"success": True, "commitOid": REVISION, "commitUrl": url, "hookOutput": ""})

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        parts = []
        while size := int(self.rfile.readline(), 16):
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def _json(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self._start(status, len(body), {"Content-Type": "application/json"})
        self._write(body)

    def _answer(self) -> None:
        self.hub.requests.append((self.command, self.path, self.headers.get("Range")))
        if self.path.startswith("/cdn/"):
            self._send_content(self.path.removeprefix("/cdn/"))
            return
        repo, found, rest = self.path.lstrip("/").partition("/resolve/")
        revision, _, name = rest.partition("/")
        mode = self.hub.modes.get(name, self.hub.modes.get("*", ""))
        path = self.hub.folder / repo / name
        if mode in ERRORS:
            self._refuse(*ERRORS[mode])
        elif mode == "gated":
            status = 403 if self.headers.get("Authorization") else 401
            self._refuse(status, "GatedRepo", f"Access to model {repo} is restricted.")
        elif not found or not (self.hub.folder / repo).is_dir():
            self._refuse(*ERRORS["no_repo"])
        elif revision != REVISION:
            self._refuse(*ERRORS["no_revision"])
        elif not path.is_file():
            self._refuse(*ERRORS["missing"])
        elif path.suffix == ".safetensors":
            self._redirect(f"{repo}/{name}", path.read_bytes())
        else:
            self._send_small(path.read_bytes(), mode)

    def _refuse(self, status: int, code: str, message: str) -> None:
        body = json.dumps({"error": message}).encode()
        headers = {"X-Error-Message": message, "X-Repo-Commit": REVISION if code == "EntryNotFound" else ""}
        if code:
            headers["X-Error-Code"] = code
        self._start(status, len(body), {key: value for key, value in headers.items() if value})
        self._write(body)

    def _send_small(self, body: bytes, mode: str) -> None:
        etag = hashlib.sha1(b"blob %d\0" % len(body) + body).hexdigest()  # as git names a file
        if mode == "escaping":
            etag = "../../../../pwned"
        if mode == "changed":
            body = body[:-1] + bytes([body[-1] ^ 1])
        self._start(200, len(body), {"ETag": f'"{etag}"', "X-Repo-Commit": REVISION, "Accept-Ranges": "bytes"})
        self._write(body)

    def _redirect(self, path: str, body: bytes) -> None:
        headers = {
            "Location": f"{self.hub.cdn}/{path}",
            "X-Repo-Commit": REVISION,
            "X-Linked-Size": str(len(body)),
            "X-Linked-ETag": f'"{hashlib.sha256(body).hexdigest()}"',
            "ETag": '"etag-of-the-redirect"',
            "Accept-Ranges": "bytes",
        }
        self._start(302, 0, headers)

    def _send_content(self, path: str) -> None:
        assert "Authorization" not in self.headers, "a token was sent to the CDN"
        body = (self.hub.folder / path).read_bytes()
        name = path.rpartition("/")[2]
        mode = self.hub.modes.get(name, self.hub.modes.get("*", ""))
        half = len(body) // 2
        if mode == "wrong":
            body = body[:half] + bytes(byte ^ 255 for byte in body[half:])
        if mode == "short":
            body = body[:half]
        first = 0
        if asked := self.headers.get("Range"):
            first = int(asked.removeprefix("bytes=").rstrip("-"))
            ranged = {"Content-Range": f"bytes {first}-{len(body) - 1}/{len(body)}"}
            self._start(206, len(body) - first, ranged)
        else:
            self._start(200, len(body), {})
        stops = mode in ("truncated", "slow") or (mode == "interrupted" and name not in self.hub.interrupted)
        self.hub.interrupted.add(name)
        self._write(body[first : max(first, half)] if stops else body[first:])
        if mode == "slow":
            self.hub.released.wait(30)
        self.close_connection = stops

    def _start(self, status: int, length: int, headers: dict[str, str]) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(length))
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def _write(self, body: bytes) -> None:
        if self.command == "HEAD":
            return
        try:
            self.wfile.write(body)
            self.wfile.flush()
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True


def write_tiny_gpt2(folder: Path, layout: str) -> None:
    """A random GPT-2 of 2 layers with a byte-level tokenizer, as files in `folder`.

    layout: "hub" has the names of OpenAI's file on the hub: no prefix, a mask buffer ``h.N.attn.bias`` a
    layer, no head. "sharded" is that in two files and an index. "shipped" is what training/train.py writes:
    the same names in bfloat16, without masks.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=4, n_positions=64, bos_token_id=0, eos_token_id=0)
    model = GPT2LMHeadModel(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    tokenizer = tiny_tokenizer()
    with torch.no_grad():  # nothing but letters is ever the most likely
        for token in range(config.vocab_size):
            if not tokenizer.decode([token]).strip().isalpha():
                model.transformer.wte.weight[token] *= 1e-3
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config.to_dict() | {"architectures": ["GPT2LMHeadModel"]}))
    tokenizer.save(str(folder / "tokenizer.json"))
    state = dict(model.transformer.state_dict())
    if layout == "shipped":
        rounded = {name: tensor.bfloat16() for name, tensor in state.items()}
        save_file(rounded, folder / "model.safetensors", metadata={"format": "pt"})
        return
    mask = torch.tril(torch.ones(64, 64))[None, None]
    state |= {f"h.{layer}.attn.bias": mask.clone() for layer in range(2)}
    if layout == "hub":
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        return
    shards = {name: f"model-0000{1 + name.startswith('h.')}-of-00002.safetensors" for name in state}
    for shard in set(shards.values()):
        save_file({name: t for name, t in state.items() if shards[name] == shard}, folder / shard)
    index = {"metadata": {}, "weight_map": shards}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def tiny_tokenizer() -> Any:
    """A byte-level BPE with 300 entries, id 0 the end of a text."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = ["It is a truth universally acknowledged", "the wheel, the thing, the other; then there were three"]
    tokenizer.train_from_iterator(texts, trainer)
    return tokenizer
