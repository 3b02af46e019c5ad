"""Names of runs and studies are names of one folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from smoa_lightning.__main__ import main
from smoa_lightning.common.errors import UserError
from smoa_lightning.common.folder_names import check_folder_name

WRONG = ["", ".", "..", "../x", "a/b", "/", "a\\b", "a\0b", "a\nb", "x" * 256, "é" * 128]


@pytest.mark.parametrize("name", WRONG, ids=repr)
def test_names_that_are_no_folder_are_refused(name: str) -> None:
    with pytest.raises(UserError, match=r"^run\.name (is|has) "):
        check_folder_name(name, "run.name")


@pytest.mark.parametrize("name", ["a", "a b", "é" * 127, "x" * 255, "...", "-a", "seed=1,r=2"])
def test_other_names_are_accepted(name: str) -> None:
    check_folder_name(name, "run.name")


@pytest.mark.parametrize("command", ["fit", "test", "params"])
@pytest.mark.parametrize("name", ["../out", "a/b", "x" * 300, ".."])
def test_commands_refuse_the_name_before_any_file(
    name: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main([command, "--model.adapter=null", "--model.frozen=true", f"--run.name={name}"]) == 2
    assert "run.name" in capsys.readouterr().err
    assert not any(tmp_path.iterdir())


def test_a_study_has_such_a_name_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("../out", "..", "x" * 300):
        file = tmp_path / "study.yaml"
        file.write_text(f"name: '{name}'\naxes: {{data.seed: [1]}}\n")
        assert main(["ablate", "--config", str(file), "--plan"]) == 2
        assert "name" in capsys.readouterr().err
