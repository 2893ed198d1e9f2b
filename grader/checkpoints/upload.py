"""An exported folder onto the hub, by the hub's own client."""

from pathlib import Path

import huggingface_hub as hub
from huggingface_hub import constants

from grader.errors import GraderError, last_line


def upload(folder: Path, repository: str, public: bool = False) -> str:
    """Upload every file of the folder in one commit, making the repository where there is none; its address.

    repository: owner/name. public: whether others can see it; a repository that exists stays as it is.
    Raises GraderError that says why it was refused. The folder is not changed.
    """
    owner, slash, name = repository.partition("/")
    if not (owner and slash and name) or "/" in name:
        raise GraderError(f"--upload {repository} is not OWNER/NAME, as in jane/my-qwen3.")
    again = f"The folder is complete; to try again: hf upload {repository} {folder}"
    if constants.HF_HUB_OFFLINE:
        raise GraderError(f"HF_HUB_OFFLINE=1 forbids uploading. {again}")
    client = hub.HfApi(endpoint=constants.ENDPOINT)
    try:
        client.create_repo(repository, private=not public, exist_ok=True)
        client.upload_folder(repo_id=repository, folder_path=folder, commit_message="Upload the model")
    except Exception as error:  # the client raises its own, httpx's and the system's errors
        raise GraderError(f"{_reason(error, repository)} {again}") from None
    return f"{constants.ENDPOINT}/{repository}"


def _reason(error: Exception, repository: str) -> str:
    # Names, not classes: client 1 raises httpx's errors and client 2 those of httpx2.
    kinds = {kind.__name__ for kind in type(error).__mro__}
    status = getattr(getattr(error, "response", None), "status_code", None)
    if "LocalTokenNotFoundError" in kinds or status == 401:
        return f"{constants.ENDPOINT} does not know who you are. Run: hf auth login"
    if status == 403:
        return f"your token may not write to {repository}. Give it write access at {constants.ENDPOINT}/settings/tokens"
    if status is not None:
        return f"{constants.ENDPOINT} refused {repository} with error {status}."
    if {"ConnectError", "ConnectTimeout", "ProxyError"} & kinds:
        return f"{constants.ENDPOINT} can't be reached."
    return f"{repository} can't be uploaded ({type(error).__name__}: {last_line(error)})."
