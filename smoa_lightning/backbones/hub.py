"""The model hub: whether it answers, the source of a model or data set, and the hub's errors as one sentence.

A model or data set has one of three sources: ``hub`` (the Hugging Face Hub, or the mirror in ``HF_ENDPOINT``),
``local`` (files of the user) or ``embedded`` (shipped with this package). Heavy libraries are imported at first use, so
that ``--help`` stays fast.
"""

from __future__ import annotations

import logging
import os
import queue
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from smoa_lightning.common.atomic_files import replacing
from smoa_lightning.common.errors import UserError, nearest

logger = logging.getLogger(__name__)

Source = Literal["hub", "local", "embedded"]
RepoType = Literal["model", "dataset"]

SOURCES = ("auto", "hub", "local", "embedded")
DATA_ENDINGS = (".parquet", ".jsonl", ".json", ".csv", ".tsv")
WEIGHT_ENDINGS = (".safetensors", ".bin")
OFFLINE_VARIABLES = ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE")

_TRUE = {"1", "ON", "YES", "TRUE"}
_NETWORK_LIBRARIES = {"httpx", "httpx2", "httpcore", "httpcore2", "requests", "urllib3"}
_commits: dict[tuple[str, str, str, str | None], str | None] = {}  # endpoint, repository, kind, revision -> commit
_answers: dict[str, bool] = {}  # endpoint -> whether it answers; one probe for each process


def offline_variable() -> str | None:
    """Return the name of the environment variable that switches the hub off, or None."""
    return next((name for name in OFFLINE_VARIABLES if os.environ.get(name, "").upper() in _TRUE), None)


def hub_answers(timeout: float = 3.0) -> bool:
    """Return whether the hub answers; the result is cached for the whole process.

    One request is sent, without retries, for at most ``timeout`` seconds. A thread enforces this limit, since no
    socket timeout covers name resolution. Any HTTP response counts as an answer, even an error.
    ``HF_HUB_OFFLINE``, ``HF_DATASETS_OFFLINE`` and ``TRANSFORMERS_OFFLINE`` give False without a request.

    Raises:
        UserError: ``HF_ENDPOINT`` is not an address.
    """
    if offline_variable():
        return False
    address = endpoint()
    if address not in _answers:
        _answers[address] = probe(address, timeout)
    return _answers[address]


def endpoint() -> str:
    """Return the address of the hub: ``HF_ENDPOINT`` as ``huggingface_hub`` reads it, or the public address."""
    from huggingface_hub import constants

    address = constants.ENDPOINT
    if not address.startswith(("http://", "https://")):
        raise UserError(f"HF_ENDPOINT is {address!r}, which is not an address such as https://huggingface.co.")
    return address


def probe(address: str, timeout: float) -> bool:
    """Send one HEAD request to ``address``; True if any HTTP response arrives within ``timeout`` seconds."""
    from huggingface_hub.utils import get_session  # the transport of downloads, with their proxies and certificates

    outcome: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

    def ask() -> None:
        try:
            get_session().head(address, timeout=timeout)
            outcome.put(None)
        except Exception as error:
            outcome.put(error)

    threading.Thread(target=ask, name="hub-probe", daemon=True).start()
    try:
        error = outcome.get(timeout=timeout)
    except queue.Empty:
        return False
    if error is not None and not isinstance(error, OSError) and not is_of_network(error):
        raise error  # a bug, not a failed connection
    return error is None


def is_of_network(error: BaseException) -> bool:
    """Return whether an exception comes from any HTTP library that ``huggingface_hub`` may use."""
    return type(error).__module__.split(".")[0] in _NETWORK_LIBRARIES


def cached_snapshot(repo_id: str, repo_type: RepoType, revision: str | None = None) -> Path | None:
    """Return the cache folder of ``repo_id`` at exactly this ``revision``, or None if it lacks data or weights."""
    folder = _cache_of(repo_id, repo_type) / "snapshots" / (_cached_commit(repo_id, repo_type, revision) or "none")
    if not folder.is_dir() or (repo_type == "model" and not (folder / "config.json").exists()):
        return None
    endings = DATA_ENDINGS if repo_type == "dataset" else WEIGHT_ENDINGS
    # exists() follows links to the blobs: a broken link is an incomplete download
    return folder if any(path.name.endswith(endings) and path.exists() for path in folder.rglob("*")) else None


def _cache_of(repo_id: str, repo_type: RepoType) -> Path:
    from huggingface_hub import constants

    return Path(constants.HF_HUB_CACHE) / f"{repo_type}s--{repo_id.replace('/', '--')}"


def _cached_commit(repo_id: str, repo_type: RepoType, revision: str | None) -> str | None:
    """Return the commit that a revision had when it was downloaded, else the revision itself."""
    reference = _cache_of(repo_id, repo_type) / "refs" / (revision or "main")
    return reference.read_text(encoding="utf-8").strip() if reference.is_file() else revision


def commit_of(repo_id: str, repo_type: RepoType, revision: str | None) -> str | None:
    """Return the commit of a revision: from the hub if it answers, else from its cache; the same for a whole process.

    A run reads this commit from its start to its end, also if the branch moves on.

    Raises:
        UserError: The hub has no such repository or revision.
    """
    if re.fullmatch(r"[0-9a-f]{40}", revision or ""):
        return revision
    if not hub_answers():
        return _cached_commit(repo_id, repo_type, revision)
    key = endpoint(), repo_id, repo_type, revision
    if key not in _commits:
        from huggingface_hub import HfApi

        with hub_errors(repo_id, repo_type, revision):
            _commits[key] = HfApi().repo_info(repo_id, repo_type=repo_type, revision=revision).sha
    return _commits[key]


def remember_commit(repo_id: str, repo_type: RepoType, revision: str | None, commit: str | None) -> None:
    """Write into the cache which commit a branch or tag has, after the files of this commit were downloaded.

    Everything is downloaded at a commit, and ``huggingface_hub`` writes this reference only for downloads at a branch.
    Without it the branch could not be found in the cache when the hub does not answer. The reference is written last,
    so that it never names a commit whose files are missing.
    """
    if commit is None or commit == revision or commit == _cached_commit(repo_id, repo_type, revision):
        return
    try:
        with replacing(_cache_of(repo_id, repo_type) / "refs" / (revision or "main")) as temporary:
            temporary.write_text(commit, encoding="utf-8")
    except OSError as error:  # a cache of another user: its files can be read, and the run goes on
        logger.debug("the cache does not remember commit %s of %s: %s", commit, repo_id, error)


def resolve_source(
    requested: str, repo_id: str | None, repo_type: RepoType, revision: str | None, embedded_available: bool
) -> Source:
    """Decide the source of a model or data set without loading it.

    ``auto`` is ``hub`` if the hub answers or its cache holds this revision, else ``embedded``. Any other source is
    used as requested. The caller must print the result, so that no fallback is silent.

    Args:
        requested: ``auto``, ``hub``, ``local`` or ``embedded``.
        repo_id: Repository on the hub; None if there is none.
        repo_type: ``model`` or ``dataset``.
        revision: Branch, tag or commit; None means the default branch.
        embedded_available: Whether this package ships an embedded version.

    Raises:
        UserError: The source is unknown, ``hub`` neither answers nor is cached, or nothing is embedded.
    """
    if requested not in SOURCES:
        raise UserError(
            f"unknown source {requested!r} for the {repo_type}; did you mean {nearest(requested, SOURCES, 1)}?"
        )
    if requested == "local":
        return "local"
    if requested == "embedded" or (requested == "auto" and repo_id is None):
        if not embedded_available:
            raise UserError(f"no embedded {repo_type} is shipped for this; use source hub or local.")
        return "embedded"
    if repo_id is None:
        raise UserError(f"this {repo_type} has no repository on the hub; use source local or embedded.")
    if hub_answers() or cached_snapshot(repo_id, repo_type, revision):
        return "hub"
    if requested == "auto" and embedded_available:
        return "embedded"
    raise UserError(_unreachable(repo_id, repo_type, revision) + "; use source local or embedded instead.")


@contextmanager
def hub_errors(repo_id: str, repo_type: RepoType = "model", revision: str | None = None) -> Iterator[None]:
    """Turn exceptions of ``huggingface_hub``, ``transformers`` and ``datasets`` about a repository into one sentence.

    Covers a gated, missing or private repository, a missing revision or file, an error status and a failed connection.
    The hub's exception is found even if a library has wrapped it. All other exceptions pass unchanged.

    >>> from huggingface_hub.errors import HFValidationError
    >>> with hub_errors("a/b/c"):  # doctest: +ELLIPSIS
    ...     raise HFValidationError("Repo id must be in the form ...")
    Traceback (most recent call last):
        ...
    smoa_lightning.common.errors.UserError: 'a/b/c' is neither a name of a model on the hub ('owner/name') nor...
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        for cause in _causes(error):
            sentence = _sentence(cause, repo_id, repo_type, revision)
            if sentence:
                raise UserError(sentence) from error
        raise


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield ``error`` and the chain of its causes, outermost first."""
    current: BaseException | None = error
    while current is not None:
        yield current
        current = current.__cause__ or (None if current.__suppress_context__ else current.__context__)


def _sentence(error: BaseException, repo_id: str, repo_type: RepoType, revision: str | None) -> str | None:
    """Return the sentence for an exception of the hub, or None for any other exception."""
    from huggingface_hub import errors

    thing = f"{repo_type} {repo_id!r}"
    if isinstance(error, errors.GatedRepoError):
        page = f"{endpoint()}/{'datasets/' if repo_type == 'dataset' else ''}{repo_id}"
        return f"the {thing} is gated: accept its terms at {page} and log in with `hf auth login` or HF_TOKEN."
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"the hub has no {thing}, or it is private: check the name, or log in with `hf auth login` or HF_TOKEN."
    if isinstance(error, errors.RevisionNotFoundError):
        return (
            f"the {thing} has no revision {revision or 'main'!r} on the hub: name a branch, tag or commit that it has."
        )
    if isinstance(error, errors.LocalEntryNotFoundError | errors.OfflineModeIsEnabled):
        return _unreachable(repo_id, repo_type, revision) + "."
    if isinstance(error, errors.EntryNotFoundError):
        return f"the {thing} lacks a required file: {_first_line(error)}"
    if isinstance(error, errors.HFValidationError):
        return f"{repo_id!r} is neither a name of a {repo_type} on the hub ('owner/name') nor an existing folder."
    if isinstance(error, errors.HfHubHTTPError):
        return f"the hub answered with status {error.response.status_code} for the {thing}: {_first_line(error)}"
    if is_of_network(error):
        return f"the connection to the hub failed for the {thing}: {type(error).__name__}: {_first_line(error)}"
    return None


def _unreachable(repo_id: str, repo_type: RepoType, revision: str | None) -> str:
    at = f" at revision {revision!r}" if revision else ""
    variable = offline_variable()
    reason = f"is switched off by {variable}" if variable else f"({endpoint()}) does not answer"
    return f"the hub {reason} and its cache does not hold the {repo_type} {repo_id!r}{at}"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
