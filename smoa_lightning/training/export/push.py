"""Upload an exported folder to the model hub."""

from __future__ import annotations

from pathlib import Path

import huggingface_hub
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from smoa_lightning.backbones.hub import is_of_network
from smoa_lightning.common.errors import UserError, one_line


def check_push(repository: str) -> None:
    """Refuse a push that cannot succeed, before anything is loaded.

    Raises:
        UserError: The name is no repository, or there is no token.
    """
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise UserError(f"export: --push {repository!r} is not a repository: use USER/NAME") from error
    if huggingface_hub.get_token() is None:
        raise UserError(
            "export: --push needs a token of huggingface.co: run 'hf auth login', or set the variable HF_TOKEN"
        )


def push(folder: Path, repository: str) -> str:
    """Create the repository if it does not exist, upload a complete folder, and return the address.

    Raises:
        UserError: The hub does not answer, or refuses the upload; the folder remains.
    """
    hub = huggingface_hub.HfApi()
    try:
        hub.create_repo(repository, repo_type="model", exist_ok=True)
        hub.upload_folder(
            repo_id=repository, folder_path=folder, repo_type="model", commit_message="Export of smoa_lightning"
        )
    except Exception as error:  # the HTTP libraries have no common class
        if not isinstance(error, OSError) and not is_of_network(error):
            raise
        raise UserError(
            f"export: {folder} is complete, but the upload to {repository!r} failed: {one_line(error, 300)}; upload "
            f"the folder with 'hf upload {repository} {folder}'"
        ) from error
    return f"{hub.endpoint}/{repository}"
