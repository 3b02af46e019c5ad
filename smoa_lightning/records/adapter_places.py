"""Where the adapter of a run is, and what to say about a folder without one."""

from __future__ import annotations

from pathlib import Path

from smoa_lightning.common.errors import UserError
from smoa_lightning.common.paths import near_place
from smoa_lightning.records.record import ADAPTER_FACTS

BEST = "adapter/best"  # in the folder of a run


def adapter_in(folder: Path) -> Path:
    """Return the adapter folder of a run, or the folder itself if it holds an adapter.

    Raises:
        UserError: There is no adapter; the message names one that is near, or how to load an adapter of peft alone.
    """
    if not folder.exists():
        raise UserError(f"{folder} does not exist{near_place(folder) or ': name the folder of a run'}")
    place = folder / BEST if (folder / BEST).is_dir() else folder
    if (place / ADAPTER_FACTS).is_file():
        return place
    near = [*sorted(folder.glob("version_*"), reverse=True), *folder.parents[:3]]
    run = next((each for each in near if (each / BEST / ADAPTER_FACTS).is_file()), None)
    hint = "" if run is None else f"; did you mean {run}?"
    if (place / "adapter_config.json").is_file():
        hint = "; peft alone has saved it, so load it with PeftModel.from_pretrained"
    raise UserError(f"{place} is neither a run with an adapter nor an adapter folder: it has no {ADAPTER_FACTS}{hint}")
