"""Getting a file from the hub so that it can be trusted, and saying plainly why it can't be had.

The hub's own client finds, authorises, redirects and caches. What it lacks is added here:
`hf_hub_download` deletes a partial file when a download breaks off (seen in 1.31 and 2.4), so a large file
would start again from nothing. Files are fetched into the client's own cache as ``blobs/<etag>.incomplete``
and kept until whole.
"""

import contextlib
import errno
import hashlib
import logging
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import huggingface_hub as hub
from huggingface_hub import constants
from huggingface_hub.file_download import http_get, repo_folder_name
from huggingface_hub.utils import (  # type: ignore[attr-defined]  # exported, but not in its __all__
    WeakFileLock,
    are_progress_bars_disabled,
    build_hf_headers,
    disable_progress_bars,
    enable_progress_bars,
)
from huggingface_hub.utils import logging as hub_logging

from grader.checkpoints.registry import Entry, File, Hub
from grader.errors import GraderError, Unavailable

METADATA_TIMEOUT = 5.0  # seconds to find out that there is no network
ETAG = re.compile("[0-9a-zA-Z-]{1,128}")  # it becomes a file's name in the cache: nothing that leads out of it
CHUNK = 1 << 20


def cached_file(where: Hub, filename: str) -> Path | None:
    """The file in the hub client's cache, or None."""
    found = hub.try_to_load_from_cache(where.repo, filename, revision=where.revision)
    return Path(found) if isinstance(found, str) else None


def fetch(entry: Entry, filename: str, progress: bool) -> Path:
    """The file, from the cache or downloaded and verified. Raises Unavailable with a reason and what to do next."""
    where, known = entry.hub, entry.files[filename]
    assert where is not None, f"{entry.name} has no hub repository"
    found = cached_file(where, filename)
    if found:
        return found
    if constants.HF_HUB_OFFLINE:
        raise Unavailable(
            f"{entry.name} is not on this machine, and HF_HUB_OFFLINE=1 forbids downloading."
            f" Unset it and run: grader weights get {entry.name}"
        )
    try:
        with _settings(progress):
            _fetch_blob(where, filename, known)
            return Path(hub.hf_hub_download(where.repo, filename, revision=where.revision))
    except GraderError:
        raise
    except Exception as error:  # the client raises its own, httpx's and the system's errors
        raise Unavailable(_reason(error, entry, filename)) from None


def wrong_size(path: Path, known: File) -> str:
    """As in "has 3 bytes instead of 5"; "" where the size is right, or not known."""
    size = path.stat().st_size
    if known.size is None or size == known.size:
        return ""
    return f"has {size:,} bytes instead of {known.size:,}"


def verify(path: Path, known: File) -> str:
    """What is wrong with a file, its whole content read; "" where nothing is, or nothing is known."""
    wrong = wrong_size(path, known)
    if wrong:
        return wrong
    if known.sha256 is not None:
        right = sha256(path) == known.sha256
    else:
        right = known.git_sha1 is None or git_sha1(path) == known.git_sha1
    return "" if right else "does not have the checksum it should have"


def sha256(path: Path) -> str:
    """The file's SHA-256 in hex."""
    return _digest(path, hashlib.sha256())


def git_sha1(path: Path) -> str:
    """The name that git gives to the file's content, in hex."""
    return _digest(path, hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False))


def _digest(path: Path, digest: "hashlib._Hash") -> str:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def with_checksum(known: File, etag: str) -> File:
    """What is known of a file, completed by the hub's name for its content.

    That is the SHA-256 of a file in its large-file storage, and git's own SHA-1 of any other. A cached file's blob
    has that name, too.
    """
    if known.sha256 is not None:
        return known
    if re.fullmatch("[0-9a-f]{64}", etag):
        return replace(known, sha256=etag)
    return replace(known, git_sha1=etag) if re.fullmatch("[0-9a-f]{40}", etag) else known


def discard(path: Path) -> None:
    """Delete a file from the cache, together with the blob that it links to."""
    path.resolve().unlink(missing_ok=True)
    path.unlink(missing_ok=True)


@contextlib.contextmanager
def _settings(progress: bool) -> Iterator[None]:
    """The client's bars as wanted, and its warnings about retries off: what matters is in the error at the end."""
    had_bars, verbosity = not are_progress_bars_disabled(), hub_logging.get_verbosity()
    (enable_progress_bars if progress and had_bars else disable_progress_bars)()
    hub_logging.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        hub_logging.set_verbosity(verbosity)
        (enable_progress_bars if had_bars else disable_progress_bars)()


def _fetch_blob(where: Hub, filename: str, known: File) -> None:
    """Download into the cache's blobs, going on from a partial file, and verify; `hf_hub_download` links it then."""
    url = hub.hf_hub_url(where.repo, filename, revision=where.revision)
    metadata = hub.get_hf_file_metadata(url, timeout=METADATA_TIMEOUT)
    if metadata.etag is None:
        raise Unavailable(f"{constants.ENDPOINT} does not answer as the hub does. Is HF_ENDPOINT, or a proxy, right?")
    if not ETAG.fullmatch(metadata.etag):
        raise Unavailable(
            f"{constants.ENDPOINT} names {filename} by {metadata.etag[:60]!r}, which is no checksum. Nothing was"
            " written. Is HF_ENDPOINT, or a proxy, right?"
        )
    if metadata.commit_hash not in (None, where.revision):
        raise Unavailable(f"{constants.ENDPOINT} served another revision of {where.repo} than the one asked for.")
    if None not in (known.size, metadata.size) and known.size != metadata.size:
        raise Unavailable(
            f"{constants.ENDPOINT} has another {filename} than expected: {metadata.size:,} bytes, not {known.size:,}."
            " Is a proxy or mirror changing files?"
        )
    expected = with_checksum(File(known.size or metadata.size, known.sha256), metadata.etag)
    cache, repo = Path(constants.HF_HUB_CACHE), repo_folder_name(repo_id=where.repo, repo_type="model")
    blob = cache / repo / "blobs" / metadata.etag
    lock = cache / ".locks" / repo / f"{metadata.etag}.lock"
    blob.parent.mkdir(parents=True, exist_ok=True)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with WeakFileLock(lock):
        if blob.exists():
            return
        partial = blob.with_name(f"{blob.name}.incomplete")
        _download(url, partial, expected, filename)
        wrong = verify(partial, expected)
        if wrong:
            partial.unlink()
            raise Unavailable(
                f"{filename} of {where.repo} was downloaded damaged: it {wrong}. It was deleted; run the same again."
                " If it happens twice, a proxy or mirror is changing files."
            )
        os.replace(partial, blob)


def _download(url: str, partial: Path, expected: File, filename: str) -> None:
    done = partial.stat().st_size if partial.exists() else 0
    if expected.size is not None:
        if done > expected.size:
            partial.unlink()
            done = 0
        free = shutil.disk_usage(partial.parent).free
        if free < expected.size - done:
            raise OSError(errno.ENOSPC, f"{_megabytes(expected.size - done)} needed, {_megabytes(free)} free")
    headers = build_hf_headers()
    headers["Accept-Encoding"] = "identity"  # a compressed answer can't be resumed
    with partial.open("ab") as file:
        http_get(
            url,
            file,
            resume_size=done,
            headers=headers,
            expected_size=expected.size,
            displayed_filename=filename,
        )


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


def _reason(error: Exception, entry: Entry, filename: str) -> str:
    """What happened, why, and what to do next, for whatever the client raised."""
    assert entry.hub is not None
    repo, again = entry.hub.repo, f"grader weights get {entry.name}"
    # Names, not classes: client 1 raises httpx's errors and client 2 those of httpx2.
    kinds = {kind.__name__ for kind in type(error).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", None)
    if "GatedRepoError" in kinds or (status == 401 and entry.gated):
        page = f"{constants.ENDPOINT}/{repo}"
        if status == 401:
            return f"{repo} is gated. Accept its licence at {page}, run `hf auth login`, then: {again}"
        return f"{repo} is gated, and your account has not been let in. Accept its licence at {page}, then: {again}"
    if "RevisionNotFoundError" in kinds:
        return f"{repo} no longer has revision {entry.hub.revision[:12]}: it was rewritten. Update the course."
    if "EntryNotFoundError" in kinds and "LocalEntryNotFoundError" not in kinds:
        return f"{repo} has no {filename} at revision {entry.hub.revision[:12]}. Update the course."
    if "RepositoryNotFoundError" in kinds or status == 404:
        return f"{constants.ENDPOINT} has no {repo}, or hides it from you. Is HF_ENDPOINT right? Are you logged in?"
    if status == 401:
        return f"{constants.ENDPOINT} did not accept your token. Run `hf auth login` (or unset HF_TOKEN), then: {again}"
    if status is not None:
        return f"{constants.ENDPOINT} answered with error {status}. Wait a little, then: {again}"
    code = error.errno if isinstance(error, OSError) else None
    if code in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"There is no room for {filename} in {constants.HF_HUB_CACHE} ({error.args[1]})."
            f" Make room, or set HF_HOME to a folder on a larger disk, then: {again}"
        )
    if code in (errno.EACCES, errno.EPERM, errno.EROFS):
        return f"{constants.HF_HUB_CACHE} can't be written. Set HF_HOME to a folder of your own, then: {again}"
    if {"ConnectError", "ConnectTimeout", "ProxyError", "OfflineModeIsEnabled"} & kinds:
        return f"{entry.name} is not on this machine, and {constants.ENDPOINT} can't be reached. Once online: {again}"
    if "TimeoutException" in kinds:
        return f"{constants.ENDPOINT} is too slow: it stopped answering. What arrived is kept; to go on: {again}"
    if "TransportError" in kinds or "Consistency check failed" in str(error):
        return f"The download of {filename} broke off. What arrived is kept; to go on: {again}"
    return f"{filename} of {repo} can't be downloaded ({type(error).__name__}: {error}). Try again: {again}"
