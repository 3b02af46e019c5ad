"""``generate --file``: rows keep their keys and order, a killed command continues, and what is refused."""

from __future__ import annotations

import datetime
import json
import os
import shutil
import signal
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from smoa_lightning.__main__ import main
from smoa_lightning.common.errors import UserError
from smoa_lightning.common.file_lock import FileLock
from smoa_lightning.training.generate import generate
from smoa_lightning.training.generation.prompts import read_prompts
from smoa_lightning.training.generation.speaker import Speaker

Saved = Callable[..., Path]
LINE = b"\n"
DRAWS = ["--temperature", "1.3", "--top_p", "0.9", "--seed", "7"]
QUESTIONS = ["Hi", "A longer question of many words?", "No.", "Why?", "ä\u2028b", "Go on", "x" * 60]


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    rows: list[dict[str, Any]] = [{"id": n, "prompt": text, "gold": [n, None]} for n, text in enumerate(QUESTIONS)]
    turns = [{"from": "human", "value": "Hi"}, {"from": "gpt", "value": "Yes?"}, {"from": "human", "value": "Bye"}]
    rows[2] = {"messages": turns, "system": "Sing.", "id": 2}
    file = tmp_path / "prompts.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return file


def write(run: Path, prompts: Path, output: Path, *flags: str) -> int:
    common = ["--max_new_tokens", "6", "--batch_size", "3"]
    return main(["generate", str(run), "--file", str(prompts), "--output", str(output), *common, *flags])


def test_a_killed_command_continues_with_the_same_bytes(
    saved: Saved, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A forked process is killed by the system in the middle of a row; the command then writes the rest."""
    run, whole, part = saved("lora"), tmp_path / "whole.jsonl", tmp_path / "part.jsonl"
    assert write(run, prompts, whole, *DRAWS) == 0
    rows = [json.loads(line) for line in whole.read_text(encoding="utf-8").split("\n")[:-1]]
    given = [json.loads(line) for line in prompts.read_text(encoding="utf-8").splitlines()]
    assert [{key: value for key, value in row.items() if key != "reply"} for row in rows] == given
    assert all(list(row) == [*own, "reply"] for row, own in zip(rows, given, strict=True))
    assert len({row["reply"] for row in rows}) == len(rows)
    child = os.fork()
    if not child:
        try:
            torch.set_num_threads(1)
            flushed: list[int] = []

            def fsync(handle: int) -> None:
                flushed.append(handle)
                if len(flushed) == 2:  # the second batch: the system has half of its first row
                    os.truncate(handle, os.fstat(handle).st_size - 100)
                    os.kill(os.getpid(), signal.SIGKILL)

            os.fsync = fsync
            write(run, prompts, part, *DRAWS)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    left = part.read_bytes()
    assert left.count(LINE) >= 3
    assert not left.endswith(LINE)
    assert whole.read_bytes().startswith(left)
    capsys.readouterr()
    assert write(run, prompts, part, *DRAWS) == 0
    assert f"7 replies, {left.count(LINE)} of them by an earlier command" in capsys.readouterr().out
    assert part.read_bytes() == whole.read_bytes()
    assert write(run, prompts, part, *DRAWS) == 0
    assert "is complete: it has the replies to all 7 prompts" in capsys.readouterr().out


def test_replies_are_those_of_the_prompt_alone(saved: Saved, prompts: Path, tmp_path: Path) -> None:
    output = tmp_path / "replies.jsonl"
    assert write(saved("lora"), prompts, output, "--against", "base") == 0
    rows = [json.loads(line) for line in output.read_text(encoding="utf-8").split("\n")[:-1]]
    alone = generate(saved("lora"), QUESTIONS, 6)
    assert [row["reply"] for row in rows if "prompt" in row] == [*alone[:2], *alone[3:]]
    assert all(row["reply"] != row["reply_against"] for row in rows)


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ('{"prompt": 3}', "row 2: the key 'prompt' must be text, not a whole number"),
        ('{"promt": "x"}', "row 2: the key 'prompt' or 'messages' is missing (the nearest key of the row is 'promt')"),
        ('{"prompt": "x", "messages": []}', "row 2: the keys 'prompt' and 'messages' exclude each other"),
        ('{"prompt": "x", "reply": "y"}', "row 2: the key 'reply' is the one that the reply gets; rename it"),
        ('{"prompt": "x", "system": 3}', "row 2: the key 'system' must be a text, not int"),
        ('{"messages": []}', "row 2: the key 'messages' must be a list of messages"),
        ('{"messages": [{"role": "user"}]}', "row 2: the key 'messages' is a list whose entry 1 has a content that"),
        ('{"messages": [{"role": "assistant", "content": "x"}]}', "ends with a message of the assistant; the last one"),
        ('{"messages": [{"role": "system", "content": "x"}]}', "ends with a message of the system; the last one must"),
        ("[1]", "row 2: the row must be an object with 'prompt' or 'messages', not list"),
        ("{x", "row 2: not valid JSON"),
    ],
)
def test_a_bad_row_is_named_before_the_model_is_loaded(
    row: str, words: str, saved: Saved, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("smoa_lightning.commands.generate.import_command", lambda name: pytest.fail("too late"))
    file, output = tmp_path / "prompts.jsonl", tmp_path / "replies.jsonl"
    file.write_text(f'{{"prompt": "x"}}\n{row}\n')
    assert write(saved("lora"), file, output) == 2
    error = capsys.readouterr().err
    assert f"{file}, " in error
    assert words in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == [file]


def test_rows_of_parquet_become_json(tmp_path: Path) -> None:
    file = tmp_path / "prompts.parquet"
    asked, day = datetime.datetime(2026, 11, 29, 10, 30, tzinfo=datetime.UTC), datetime.date(2026, 11, 29)
    row = {"prompt": "Hi", "asked": asked, "more": {"days": [day, None], "at": datetime.time(10, 30)}, "n": 2**60}
    pq.write_table(pa.Table.from_pylist([row]), file)
    (prompt,) = read_prompts(file)
    more = {"days": ["2026-11-29", None], "at": "10:30:00"}
    assert prompt.row == {"prompt": "Hi", "asked": "2026-11-29T10:30:00+00:00", "more": more, "n": 2**60}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ('[1, {"x": 1e400}]', "row 1.*: the key 'gold' holds a number that is NaN or infinite.*write null"),
        ("NaN", "the key 'gold' holds a number that is NaN or infinite"),
        (b"\xff", "row 1.*: the key 'gold' holds a value of type bytes, which JSON cannot hold; write it as a text"),
        (Decimal("1.5"), "the key 'gold' holds a value of type Decimal"),
        (datetime.timedelta(1), "the key 'gold' holds a value of type timedelta"),
    ],
)
def test_values_that_json_lacks_are_refused_by_key(value: Any, words: str, tmp_path: Path) -> None:
    if isinstance(value, str):
        file = tmp_path / "prompts.jsonl"
        file.write_text(f'{{"prompt": "Hi", "gold": {value}}}\n')
    else:
        file = tmp_path / "prompts.parquet"
        pq.write_table(pa.Table.from_pylist([{"prompt": "Hi", "gold": value}]), file)
    with pytest.raises(UserError, match=words):
        read_prompts(file)


def test_a_row_that_does_not_fit_is_named_before_weights_are_loaded(
    saved: Saved, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smoa_lightning.training.generation.speaker.load_model", lambda *_: pytest.fail("too late"))
    with prompts.open("a") as stream:
        stream.write(json.dumps({"prompt": "long " * 110}) + "\n")
    assert write(saved("lora"), prompts, tmp_path / "replies.jsonl") == 2
    error = capsys.readouterr().err
    assert f"{prompts}, row 8 has 5" in error
    assert "does not fit into the context of 512 tokens" in error
    assert list(tmp_path.iterdir()) == [prompts]


def test_other_prompts_and_settings_are_refused(
    saved: Saved,
    prompts: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run, output = saved("lora"), tmp_path / "replies.jsonl"
    assert write(run, prompts, output, *DRAWS) == 0
    capsys.readouterr()
    lines = output.read_bytes().splitlines(keepends=True)
    output.write_bytes(b"".join(lines[:4]))
    before = output.read_bytes()

    def refused(words: str, *flags: str, adapter: Path = run) -> None:
        assert write(adapter, prompts, output, *flags) == 2
        error = capsys.readouterr().err
        assert words in error
        assert error.endswith("; name a new file\n")
        assert error.count("\n") == 1
        assert output.read_bytes() == before

    refused("--seed changed from 7 to 8", *DRAWS[:-1], "8")
    refused("--temperature changed from 1.3 to 0.0")
    refused("--max_new_tokens changed from 6 to 7", *DRAWS, "--max_new_tokens", "7")
    refused("--system changed from None to 'x'", *DRAWS, "--system", "x")
    refused("--against changed from None to 'base'", *DRAWS, "--against", "base")
    other = saved("smoa")
    capsys.readouterr()
    refused("the adapter changed", *DRAWS, adapter=other)
    given = prompts.read_text(encoding="utf-8")
    prompts.write_text(given.replace("Hi", "Ho"), encoding="utf-8")
    refused("the file of prompts changed since its first rows", *DRAWS)
    prompts.write_text(given, encoding="utf-8")
    settings = tmp_path / "replies.jsonl.settings.json"
    with FileLock(settings), monkeypatch.context() as patch:
        patch.setattr("smoa_lightning.training.generate.open_speakers", None)  # nothing is read before the refusal
        assert write(run, prompts, output, *DRAWS) == 2
        assert f"another process writes {output}" in capsys.readouterr().err
    before = output.read_bytes().replace(b'"id": 1', b'"id": 9')
    output.write_bytes(before)
    refused("its row 2 is not a reply to row 2 of the prompts", *DRAWS)
    settings.unlink()
    refused("since there is no replies.jsonl.settings.json", *DRAWS)
    shutil.copy(prompts, output)
    before = output.read_bytes()
    refused("it was not written by this command", *DRAWS)


def test_rows_before_a_lack_of_memory_are_kept(
    saved: Saved, prompts: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output, original = tmp_path / "replies.jsonl", Speaker.replies

    def replies(self: Speaker, batch: Any, decoding: Any, numbers: Any, ended: Any = None) -> list[str]:
        if numbers[0] == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return original(self, batch, decoding, numbers, ended)

    monkeypatch.setattr(Speaker, "replies", replies)
    assert write(saved("lora"), prompts, output) == 2
    words = "too little memory for 3 replies at a time: set a smaller --batch_size; the rows so far are kept"
    assert words in capsys.readouterr().err
    assert output.read_bytes().count(LINE) == 3
    monkeypatch.setattr(Speaker, "replies", original)
    assert write(saved("lora"), prompts, output, "--batch_size", "2") == 0
    assert output.read_bytes().count(LINE) == len(QUESTIONS)


def test_a_model_that_cannot_be_loaded_leaves_no_file(
    saved: Saved, prompts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is locked while models are loaded."""

    def broken(*_: object) -> None:
        with pytest.raises(BlockingIOError):
            FileLock(tmp_path / "new.jsonl.settings.json")
        raise UserError("no such weights")

    monkeypatch.setattr("smoa_lightning.training.generation.of_file.load_speakers", broken)
    assert write(saved("lora"), prompts, tmp_path / "new.jsonl", *DRAWS) == 2
    assert not list(tmp_path.glob("new.jsonl*"))
