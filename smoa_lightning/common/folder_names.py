"""Names that become the name of one folder."""

from __future__ import annotations

from smoa_lightning.common.errors import UserError

LONGEST = 255  # bytes; the largest name that file systems take


def check_folder_name(name: str, where: str) -> None:
    """Refuse a name that cannot be the name of one folder.

    Args:
        name: The name.
        where: The setting that has the name.

    Raises:
        UserError: The name is empty, ``.`` or ``..``, too long, or has a slash or a control character.
    """
    size = len(name.encode("utf-8", "surrogatepass"))
    if size > LONGEST:
        raise UserError(f"{where} has {size} bytes, but the name of a folder has at most {LONGEST}")
    parts = name.replace("\\", "/").split("/")
    if len(parts) > 1 or name in ("", ".", "..") or any(ord(letter) < 32 or letter == "\x7f" for letter in name):
        last = "".join(letter for letter in parts[-1] if letter.isprintable())
        nearest = last if last not in ("", ".", "..") else "my-run"
        raise UserError(f"{where} is {name!r}, but is the name of one folder, without slashes, such as {nearest!r}")
