"""Write the embedded rows of every task and the general text, which ship with the package.

``python -m tools.embedded.write_rows [--output FOLDER]``
"""

from __future__ import annotations

import argparse
import gzip
import io
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from smoa_lightning.common.atomic_files import replacing
from smoa_lightning.embedded import SPLITS, rows_folder
from tools.embedded import (
    activities,
    boolq,
    corpus,
    everyday,
    glue,
    instruct,
    messages,
    persona,
    phone_book,
    piqa,
    science,
    shapes,
    social,
    sums,
    winogrande,
)

#: task -> generator of its rows, ``(split) -> rows`` in the Hub schema of the task
GENERATORS: dict[str, Callable[[str], list[dict[str, Any]]]] = {
    "boolq": boolq.rows,
    "piqa": piqa.rows,
    "social_i_qa": social.rows,
    "hellaswag": activities.rows,
    "winogrande": winogrande.rows,
    "arc_easy": science.arc_easy_rows,
    "arc_challenge": science.arc_challenge_rows,
    "openbookqa": science.openbookqa_rows,
    "gsm8k": sums.gsm8k_rows,
    "metamath_qa": sums.metamath_rows,
    "convai2": persona.rows,
    "daily_dialog": everyday.rows,
    "commonsense_instruct": instruct.rows,
    "choice": instruct.choice_rows,
    "instruction": instruct.instruction_rows,
    "chat": messages.rows,
    "phone_book": phone_book.rows,
    **glue.GENERATORS,
    "image_classification": shapes.rows,
}


def files() -> Iterator[tuple[str, bytes]]:
    """Yield the name of every file in the folder of rows, and its content as JSON lines."""
    for task, generate in GENERATORS.items():
        for split in SPLITS:
            yield f"{task}/{split}.jsonl.gz", _lines(generate(split))
    yield "general_text.jsonl.gz", _lines({"text": text} for text in corpus.held_out_text())


def _lines(rows: Iterable[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def write(path: Path, content: bytes) -> bool:
    """Write a compressed file without a time stamp, and return whether its content is new.

    A file with this content already stays as it is, because another version of zlib compresses to other bytes.
    """
    if path.exists() and gzip.decompress(path.read_bytes()) == content:
        return False
    packed = io.BytesIO()
    with gzip.GzipFile(filename="", mode="wb", compresslevel=9, fileobj=packed, mtime=0) as stream:
        stream.write(content)
    with replacing(path) as temporary:
        temporary.write_bytes(packed.getvalue())
    return True


def main(arguments: list[str] | None = None) -> None:
    """Read the command line and write the rows."""
    summary = (__doc__ or "").partition("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tools.embedded.write_rows", description=summary)
    parser.add_argument("--output", type=Path, default=rows_folder(), help="folder to write (default: the shipped one)")
    output = parser.parse_args(arguments).output
    changed = [write(output / name, content) for name, content in files()]
    print(f"{output}: {len(changed)} files, {sum(changed)} changed")


if __name__ == "__main__":
    main()
