"""The files of the package are found by name where the working directory has no such file."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from smoa_lightning.__main__ import main
from smoa_lightning.common.errors import UserError
from smoa_lightning.configuration import shipped_files
from smoa_lightning.configuration.shipped_files import config_file, description, full_name
from smoa_lightning.configuration.yaml_files import expand_bases
from tests.wheel import build

ROOT = Path(__file__).parents[2]


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(params=["source tree", "installed"])
def place(request: pytest.FixtureRequest, elsewhere: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the files, in a source tree and as a wheel has them."""
    if request.param == "source tree":
        return ROOT
    package = elsewhere / "site" / "smoa_lightning"
    for kind in shipped_files.KINDS:
        shutil.copytree(ROOT / kind, package / "configs" / kind)
    monkeypatch.setattr(shipped_files.smoa_lightning, "__file__", str(package / "__init__.py"))
    return package / "configs"


@pytest.mark.parametrize(
    ("name", "kind", "file"),
    [
        ("experiments/piqa.yaml", "experiments", "experiments/piqa.yaml"),
        ("piqa.yaml", "experiments", "experiments/piqa.yaml"),
        ("piqa", "experiments", "experiments/piqa.yaml"),
        ("adapters/lora", "experiments", "experiments/adapters/lora.yaml"),
        ("lora", "experiments", "experiments/adapters/lora.yaml"),
        ("rank", "ablations", "ablations/rank.yaml"),
        ("methods", "ablations", "ablations/methods.yaml"),
        ("smollm2/does_rank_help", "ablations", "ablations/smollm2/does_rank_help.yaml"),
    ],
)
def test_names_of_shipped_files(name: str, kind: shipped_files.Kind, file: str, place: Path) -> None:
    assert config_file(name, kind, "--config") == place / file
    assert full_name(config_file(name, kind, "--config")) == file


def test_a_file_of_the_working_directory_comes_first(elsewhere: Path) -> None:
    (elsewhere / "experiments").mkdir()
    own = elsewhere / "experiments" / "piqa.yaml"
    own.write_text("base: base.yaml\n")  # its base is the one of the package
    assert config_file("experiments/piqa.yaml", "experiments", "--config").resolve() == own
    words = expand_bases(["--config", "experiments/piqa.yaml"])
    assert [Path(word).resolve() for word in words[1::2]] == [ROOT / "experiments" / "base.yaml", own]


@pytest.mark.parametrize(
    ("file", "name", "kind"),
    [
        ("piqa", "piqa", "experiments"),
        ("piqa.yaml", "piqa", "experiments"),
        ("experiments/piqa.yaml", "piqa", "experiments"),
        ("experiments/piqa.yaml", "piqa.yaml", "experiments"),
        ("experiments/adapters/lora.yaml", "adapters/lora", "experiments"),
        ("ablations/rank.yaml", "rank", "ablations"),
    ],
)
def test_a_short_name_means_the_own_file(file: str, name: str, kind: shipped_files.Kind, elsewhere: Path) -> None:
    own = elsewhere / file
    own.parent.mkdir(parents=True, exist_ok=True)
    own.touch()
    assert config_file(name, kind, "--config").resolve() == own
    shipped = config_file(name, kind, "base", [elsewhere / "folder"])  # a file that names its base means the package
    assert ROOT in shipped.parents


@pytest.mark.parametrize(
    ("name", "kind", "says"),
    [
        ("piqqa", "experiments", "the file 'piqqa' does not exist; the package has piqa"),
        ("experiments/piqqa.yaml", "experiments", "the file .* does not exist; the package has piqa"),
        ("./piqa.yaml", "experiments", "the file './piqa.yaml' does not exist"),
        ("../experiments/piqa.yaml", "experiments", "the file '../experiments/piqa.yaml' does not exist"),
        ("rank", "experiments", "ablations/rank.yaml is for ablate: ablate --config rank"),
        ("piqa", "ablations", "experiments/piqa.yaml is for fit: fit --config piqa"),
    ],
)
@pytest.mark.usefixtures("elsewhere")
def test_other_names_are_refused_with_the_nearest(name: str, kind: shipped_files.Kind, says: str) -> None:
    with pytest.raises(UserError, match=f"^--config: {says}"):
        config_file(name, kind, "--config")


def test_a_folder_without_the_file_names_what_it_holds(elsewhere: Path) -> None:
    (elsewhere / "mine").mkdir()
    (elsewhere / "mine" / "first.yaml").touch()
    with pytest.raises(UserError, match=r"the file 'mine/frist\.yaml' does not exist; 'mine' holds first\.yaml"):
        config_file("mine/frist.yaml", "experiments", "--config")


def test_a_name_of_several_files_is_refused(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("experiments/one/own.yaml", "experiments/two/own.yaml"):
        (elsewhere / "root" / name).parent.mkdir(parents=True)
        (elsewhere / "root" / name).touch()
    monkeypatch.setattr(shipped_files, "shipped_root", lambda: elsewhere / "root")
    says = "'own' can mean experiments/one/own.yaml, experiments/two/own.yaml: give the whole name"
    with pytest.raises(UserError, match=f"^--config: {says}$"):
        config_file("own", "experiments", "--config")
    assert config_file("two/own", "experiments", "--config").parent.name == "two"
    assert main(["configs", "show", "own"]) == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("command", ["fit", "ablate"])
def test_studies_and_experiments_are_told_apart(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Their paths exist, so the content decides."""
    file = ROOT / ("ablations/smoke.yaml" if command == "fit" else "experiments/boolq.yaml")
    assert main([command, "--config", str(file)]) == 2
    other = "ablate" if command == "fit" else "fit"
    assert f"{file} is a{' study' if command == 'fit' else 'n experiment, not a study'}" in (
        error := capsys.readouterr().err
    )
    assert f"run it with {other} --config {file}" in error


def test_configs_lists_shows_and_copies(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == len([*ROOT.glob("experiments/**/*.yaml"), *ROOT.glob("ablations/**/*.yaml")])
    assert any(
        line.split() == ["experiments/piqa.yaml", *["The", "main", "example:", "SMoA", "on", "PIQA."]] for line in lines
    )
    assert main(["configs", "show", "lora"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["model"]["adapter"]["class_path"] == "peft.LoraConfig"
    assert main(["configs", "copy", "ablations/rank", "mine"]) == 0
    assert capsys.readouterr().out == "mine/rank.yaml\n"
    copy, original = (yaml.safe_load(Path(f).read_text()) for f in ("mine/rank.yaml", ROOT / "ablations/rank.yaml"))
    assert copy == original
    assert main(["configs", "copy", "rank", "mine"]) == 2
    assert "mine/rank.yaml exists" in capsys.readouterr().err
    assert main(["configs", "copy", "piqa", "mine"]) == 0
    schema = Path("mine/piqa.yaml").read_text().partition("$schema=")[2].splitlines()[0]
    assert Path(schema).is_file()
    assert main(["configs", "show", "pika"]) == 2
    assert "the package has no configuration 'pika'; the nearest is piqa" in capsys.readouterr().err


def test_a_copied_study_finds_its_base_in_the_package(elsewhere: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from smoa_lightning.ablation.study.expand import load_study

    assert main(["configs", "copy", "smoke", "mine"]) == 0
    here, there = (load_study([file]) for file in (Path("mine/smoke.yaml"), ROOT / "ablations" / "smoke.yaml"))
    assert [run.signature for run in here.final_runs()] == [run.signature for run in there.final_runs()]


def test_every_file_has_a_description() -> None:
    for kind in shipped_files.KINDS:
        for file in shipped_files.shipped_files(kind).values():
            assert 10 < len(description(file)) < 300, file


@pytest.mark.parametrize("flags", [[], ["--data.task", "piqa"], ["--config", "base"]])
@pytest.mark.parametrize("command", ["fit", "params"])
@pytest.mark.usefixtures("elsewhere")
def test_a_run_without_a_strategy_is_refused(
    command: str, flags: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([command, *flags]) == 2
    assert "no strategy is set: add --config experiments/adapters/lora.yaml" in capsys.readouterr().err


@pytest.mark.slow
def test_the_wheel_and_the_source_archive_have_the_files(tmp_path: Path) -> None:
    """The wheel works alone, outside of the source tree."""
    wheel, archive = build(tmp_path)
    shutil.unpack_archive(archive, tmp_path / "unpacked")
    (unpacked,) = (tmp_path / "unpacked").iterdir()
    assert {"docs", "experiments", "ablations", "tests"} <= {path.name for path in unpacked.iterdir()}
    shutil.unpack_archive(wheel, tmp_path / "site", "zip")
    run = [sys.executable, "-m", "smoa_lightning"]
    environment = {"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path / "site"), "HF_HUB_OFFLINE": "1", "HOME": "/"}
    for words in (["configs"], ["params", "--config", "piqa"], ["ablate", "--config", "smoke", "--seeds", "0"]):
        done = subprocess.run([*run, *words], cwd=tmp_path, env=environment, capture_output=True, text=True)
        assert (done.returncode, "seeds is 0" in done.stderr) == ((2, True) if "ablate" in words else (0, False))
