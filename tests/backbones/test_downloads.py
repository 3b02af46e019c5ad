"""What was downloaded through this package is found again when the hub does not answer."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import close_session, constants

from smoa_lightning.backbones import hub
from smoa_lightning.backbones.backbone import BackboneConfig, load_model, locate
from smoa_lightning.backbones.hub import cached_snapshot, commit_of, remember_commit
from smoa_lightning.common.checksums import write_sealed
from smoa_lightning.common.errors import UserError
from smoa_lightning.data.rows.task_rows import RowSettings, TaskRows
from smoa_lightning.data.tasks import PIQA
from smoa_lightning.embedded import rows
from smoa_lightning.training.unchanged import Identity, check_commits
from tests.data.hub_server import COMMIT, make_server

OLD = "f" * 40


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def go_offline(tiny_backbone: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[], None]]:
    """Serve a model and a data set; the returned function makes the hub silent, as in a new process."""
    lines = "\n".join(json.dumps(row) for row in rows("piqa", "train")[:8])
    model = {file.name: file.read_bytes() for file in tiny_backbone.iterdir()}
    server = make_server({"own/model": model, "own/piqa": {"train.jsonl": lines.encode()}})
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in hub.OFFLINE_VARIABLES:
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(hub, "_answers", {})
    monkeypatch.setattr(hub, "_commits", {})
    for name, value in {"HF_HUB_CACHE": str(cache), "HF_HUB_OFFLINE": False, "HF_HUB_DISABLE_XET": True}.items():
        monkeypatch.setattr(constants, name, value)
    address = f"http://127.0.0.1:{server.server_port}"
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, address)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", address)

    def silent() -> None:
        monkeypatch.setattr(hub, "_answers", {constants.ENDPOINT: False})
        monkeypatch.setattr(hub, "_commits", {})

    yield silent
    server.shutdown()
    server.server_close()
    close_session()


@pytest.mark.parametrize("revision", [None, "main", "refs/convert/parquet"])
def test_a_downloaded_backbone_is_found_offline(
    revision: str | None, go_offline: Callable[[], None], cache: Path
) -> None:
    config = BackboneConfig(source="auto", name="own/model", revision=revision)
    online = locate(config)
    assert (online.source, online.commit) == ("hub", COMMIT)
    assert not (cache / "models--own--model" / "refs").exists()  # nothing is downloaded yet
    load_model(config, online)
    go_offline()
    assert locate(config) == online
    load_model(config, locate(config))


def test_downloaded_rows_are_found_offline(go_offline: Callable[[], None]) -> None:
    def read() -> tuple[Any, ...]:
        settings = RowSettings(source="auto", repository="own/piqa", cache=False)
        found = TaskRows(PIQA, PIQA.protocol(None), settings)
        return found.resolve(), found.commit, found.rows("train").sha256

    online = read()
    assert online[:2] == ("hub", COMMIT)
    go_offline()
    assert read() == online


def test_the_cache_remembers_a_commit_only_with_its_files(go_offline: Callable[[], None], cache: Path) -> None:
    """A branch that moved on, but was not downloaded again, stays what it is in the cache."""
    folder = cache / "models--own--model"
    (folder / "snapshots" / OLD).mkdir(parents=True)
    for name in ("config.json", "model.safetensors"):
        (folder / "snapshots" / OLD / name).write_text("x")
    remember_commit("own/model", "model", None, OLD)
    assert (folder / "refs" / "main").read_text() == OLD
    config = BackboneConfig(source="auto", name="own/model")
    assert locate(config).commit == COMMIT
    assert cached_snapshot("own/model", "model") == folder / "snapshots" / OLD
    load_model(config, locate(config))
    assert cached_snapshot("own/model", "model") == folder / "snapshots" / COMMIT
    go_offline()
    assert commit_of("own/model", "model", None) == COMMIT


@pytest.mark.parametrize(
    ("answers", "says"), [(True, "the hub changed after"), (False, "the hub does not answer, and")]
)
def test_an_older_cache_is_not_called_a_changed_hub(
    answers: bool, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("smoa_lightning.training.unchanged.hub_answers", lambda: answers)
    facts: dict[str, Any] = {"name": "x", "signature": "a", "branches": "b", "status": "failed"}
    facts["sources"] = {"backbone": ["hub", COMMIT]}
    write_sealed(tmp_path / "record.json", facts)
    with pytest.raises(UserError, match=f"{says}.*{COMMIT} became {OLD}"):
        check_commits([tmp_path], Identity("other", "b", {"backbone": ["hub", OLD]}))


def test_a_cache_that_cannot_be_written_stops_nothing(monkeypatch: pytest.MonkeyPatch, cache: Path) -> None:
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    cache.write_text("no folder")
    remember_commit("own/model", "model", "main", COMMIT)
