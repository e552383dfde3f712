"""Sending an exported folder to the Hugging Face hub, or to a server that speaks like it (``HF_ENDPOINT``)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ownchat.artifacts import MANIFEST
from ownchat.errors import UserError


def files_of(folder: Path) -> list[tuple[str, int]]:
    """What would be sent: names and bytes."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file() and file.name != MANIFEST)
    return [(file.relative_to(folder).as_posix(), file.stat().st_size) for file in files]


def target_of(repo: str | None, name: str) -> str:
    """``owner/name``: as given, or the account's own name and the run's.

    Raises :class:`~ownchat.errors.UserError` without a token, before anything is asked of the user.
    """
    api = _api()
    if repo is not None and "/" in repo:
        return repo
    return f"{_told(lambda: api.whoami())['name']}/{repo or name}"


def is_public(repo: str) -> bool | None:
    """Whether a repository of this name can be read by all; None where there is none that this account can see."""
    from huggingface_hub.errors import RepositoryNotFoundError

    api = _api()
    try:
        return not api.repo_info(repo).private
    except RepositoryNotFoundError:
        return None
    except Exception as error:
        raise _refused(error) from error


def upload(folder: Path, repo: str, *, private: bool = True) -> str:
    """Send the files of ``folder`` in one commit; returns its address.

    The repository is made where it does not exist, ``private`` unless asked otherwise. Raises
    :class:`~ownchat.errors.UserError` for what the server refuses, and for a public one where a private one was meant.
    """
    api = _api()
    if private and is_public(repo):
        raise UserError(
            "this repository is there, and all can read it", where=repo, fix="choose another --repo, or add --public"
        )
    _told(lambda: api.create_repo(repo, private=private, exist_ok=True))
    done = _told(
        lambda: api.upload_folder(
            repo_id=repo, folder_path=folder, ignore_patterns=[MANIFEST], commit_message="Model made with ownchat"
        )
    )
    return str(done.commit_url)


def _api() -> Any:
    from huggingface_hub import HfApi, get_token

    token = get_token()
    if token is None:
        raise UserError(
            "no token for the hub on this machine",
            where="export --to hub",
            fix="log in with: hf auth login, or set HF_TOKEN (a token that may write)",
        )
    return HfApi(token=token, library_name="ownchat")


def _told(ask: Any) -> Any:
    """What the hub's client raises, as a message."""
    try:
        return ask()
    except UserError:
        raise
    except Exception as error:  # its own, httpx's and OSError
        raise _refused(error) from error


def _refused(error: Exception) -> UserError:
    reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
    return UserError(f"refused: {reason}", where="hub", fix="check the name, the token's rights and the network")
