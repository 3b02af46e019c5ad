"""Rows over the hub's own protocol, without a network: a stand-in server behind HF_ENDPOINT, then its cache alone.

Each case is a process of its own, since ``huggingface_hub`` reads its environment when it is imported.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import textwrap
import threading

import pyarrow
import pyarrow.parquet
import pytest

from ..hub_server import COMMIT, make_server

HELPERS = """
import dataclasses, json, sys, time
from smoa_lightning.data.rows.sources import Origin, load_split
from smoa_lightning.data.tasks import PIQA, get_task
from smoa_lightning.common.errors import UserError
from smoa_lightning.backbones.hub import resolve_source

def attempt(function, *arguments):
    start = time.monotonic()
    try:
        outcome = {"value": function(*arguments)}
    except UserError as error:
        outcome = {"error": str(error)}
    return outcome | {"seconds": time.monotonic() - start}

def load(repository, revision, split="train", task="piqa"):
    rows, provenance = load_split(get_task(task), split, Origin("hub", repository=repository, revision=revision))
    return list(rows), provenance.as_dict()

def resolve(requested, repository, revision):
    return resolve_source(requested, repository, "dataset", revision, True)
"""


def run(script: str, **environment: str) -> dict:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("HF_", "TRANSFORMERS_"))}
    clean |= {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "NO_PROXY": "127.0.0.1"} | environment
    done = subprocess.run(
        [sys.executable, "-c", HELPERS + textwrap.dedent(script)],
        env=clean,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def parquet(rows: list[dict]) -> bytes:
    stream = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), stream)
    return stream.getvalue()


@pytest.fixture(scope="module")
def split_rows() -> dict[str, list[dict]]:
    def row(i: int, label: int) -> dict:
        return {"goal": f"goal {i}", "sol1": "a", "sol2": "b", "label": label}

    return {
        "train": [row(i, i % 2) for i in range(7)],
        "validation": [row(i, 1) for i in range(3)],
        "test": [row(0, -1)],
    }


SPLITS = ("train", "test")
SUMS = {
    "main": [{"question": "1 + 1?", "answer": "#### 2"}],
    "socratic": [{"question": "wrong configuration", "answer": "#### 0"}],
}


def card(configurations) -> str:
    """A card that assigns the files of each configuration to its splits, as that of openai/gsm8k does."""
    lines = ["---", "configs:"]
    for name in configurations:
        lines += [f"- config_name: {name}", "  data_files:"]
        lines += [line for split in SPLITS for line in (f"  - split: {split}", f"    path: {name}/{split}-*")]
    return "\n".join([*lines, "---", ""])


DIALOGUE = ["hi !", "hello .", "what is new ?", "nothing ."]
UTTERANCES = [{"candidates": ["no .", DIALOGUE[n]], "history": DIALOGUE[:n]} for n in (1, 3)]


@pytest.fixture(scope="module")
def online(tmp_path_factory, split_rows):
    """What a process sees while the hub answers; leaves a filled cache behind."""
    files = {f"data/{split}-00000-of-00001.parquet": parquet(rows) for split, rows in split_rows.items()}
    files |= {"README.md": b"---\nlicense: afl-3.0\n---\n", "picture.png": b"not wanted"}
    script_only = {"README.md": b"# x\n", "piqa.py": b"raise SystemExit('a loading script was run')"}
    persona = {"personality": ["i sing .", "i dance ."], "utterances": UTTERANCES}
    repositories = {
        "own/persona": {"data/train-00000-of-00001.parquet": parquet([persona]), "README.md": b"# x\n"},
        "own/sums": {
            **{f"{name}/{split}-00000-of-00001.parquet": parquet(SUMS[name]) for name in SUMS for split in SPLITS},
            "README.md": card(SUMS).encode(),
        },
    }
    server = make_server({"own/piqa": files, "own/gated": "GatedRepo", "own/script": script_only, **repositories})
    threading.Thread(target=server.serve_forever, daemon=True).start()
    home = tmp_path_factory.mktemp("hub")
    try:
        seen = run(
            f"""
            print(json.dumps({{
                "auto": attempt(resolve, "auto", "own/piqa", "main"),
                "pinned": attempt(load, "own/piqa", "{COMMIT}"),
                "branch": attempt(load, "own/piqa", "main", "validation"),
                "unlabelled": attempt(load, "own/piqa", "{COMMIT}", "test"),
                "split": attempt(load, "own/piqa", "{COMMIT}", "dev"),
                "gated": attempt(load, "own/gated", None),
                "missing": attempt(load, "own/none", None),
                "revision": attempt(load, "own/piqa", "v9"),
                "script": attempt(load, "own/script", None),
                "dialogue": attempt(load, "own/persona", "main", "train", "convai2"),
                "sums": attempt(load, "own/sums", "main", "test", "gsm8k"),
                "no_validation": attempt(load, "own/sums", "main", "validation", "gsm8k"),
            }}))
            """,
            HF_ENDPOINT=f"http://127.0.0.1:{server.server_port}",
            HF_HOME=str(home),
        )
    finally:
        server.shutdown()
        server.server_close()
    return seen, home, server.requests_seen


def test_rows_of_a_commit_and_of_a_branch(online, split_rows):
    seen, _, _ = online
    rows, provenance = seen["pinned"]["value"]
    assert rows == split_rows["train"]
    assert provenance["commit"] == provenance["revision"] == COMMIT
    assert provenance["num_rows"] == 7
    rows, provenance = seen["branch"]["value"]
    assert rows == split_rows["validation"]
    assert (provenance["revision"], provenance["commit"]) == ("main", COMMIT)
    assert seen["auto"]["value"] == "hub"


def test_a_dialogue_on_the_hub_becomes_one_row_for_each_reply(online):
    rows, provenance = online[0]["dialogue"]["value"]
    assert [(row["history"], row["reply"]) for row in rows] == [(DIALOGUE[:n], DIALOGUE[n]) for n in (1, 3)]
    assert all(row["personality"] == ["i sing .", "i dance ."] for row in rows)
    assert provenance["num_rows"] == 2


def test_the_configuration_of_the_task_is_read(online):
    assert online[0]["sums"]["value"][0] == SUMS["main"]


def test_only_data_files_are_fetched(online):
    assert not [request for request in online[2] if "picture" in request or "piqa.py" in request]


@pytest.mark.parametrize(
    ("case", "message"),
    [
        ("unlabelled", "test, row 1: field 'label' is -1, but must be one of 0, 1"),
        ("split", "no split 'dev'"),
        ("gated", "'own/gated' is gated"),
        ("missing", "the hub has no dataset 'own/none'"),
        ("revision", "has no revision 'v9'"),
        ("script", "'train' of task 'piqa' can be read"),
        ("no_validation", "no split 'validation' of task 'gsm8k' can be read there"),
    ],
)
def test_errors_are_one_sentence(online, case, message):
    error = online[0][case]["error"]
    assert message in error
    assert "\n" not in error


def test_the_cache_alone(online, split_rows):
    """Offline: what is cached loads, at the revisions that are cached; auto falls back for all else, hub refuses."""
    seen = run(
        f"""
        print(json.dumps({{
            "auto": attempt(resolve, "auto", "own/piqa", "{COMMIT}"),
            "auto_missing": attempt(resolve, "auto", "own/none", None),
            "auto_revision": attempt(resolve, "auto", "own/piqa", "v9"),
            "hub_missing": attempt(resolve, "hub", "own/none", None),
            "pinned": attempt(load, "own/piqa", "{COMMIT}"),
            "branch": attempt(load, "own/piqa", "main", "validation"),
            "load_revision": attempt(load, "own/piqa", "v9"),
        }}))
        """,
        HF_HUB_OFFLINE="1",
        HF_HOME=str(online[1]),
    )
    assert seen["auto"]["value"] == "hub"
    assert seen["auto_missing"]["value"] == seen["auto_revision"]["value"] == "embedded"
    assert "switched off by HF_HUB_OFFLINE" in seen["hub_missing"]["error"]
    assert seen["pinned"]["value"][0] == split_rows["train"]
    assert seen["branch"]["value"][0] == split_rows["validation"]
    assert "its cache does not hold the dataset 'own/piqa' at revision 'v9'" in seen["load_revision"]["error"]


def test_a_hub_that_refuses(online, split_rows):
    """Nothing listens: the answer comes at once and not after the retries of the libraries; the cache still serves."""
    script = """
        print(json.dumps({
            "hub": attempt(resolve, "hub", "own/none", None),
            "load": attempt(load, "own/none", None),
            "cached": attempt(load, "own/piqa", "main"),
        }))
        """
    seen = run(script, HF_ENDPOINT="http://127.0.0.1:9", HF_HOME=str(online[1]))
    assert "(http://127.0.0.1:9) does not answer" in seen["hub"]["error"]
    assert "does not answer" in seen["load"]["error"]
    assert seen["hub"]["seconds"] + seen["load"]["seconds"] < 6
    assert seen["cached"]["value"][0] == split_rows["train"]
