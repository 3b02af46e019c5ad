"""The shipped schema is that of the real parser, and it is a schema."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest
import yaml

from smoa_lightning.configuration import settings
from smoa_lightning.configuration.settings import SCHEMA_FILE, class_group, class_paths, groups, matches_schema, schema
from smoa_lightning.configuration.yaml_files import read_yaml

REPOSITORY = Path(__file__).parents[2]
EXPERIMENTS = REPOSITORY / "experiments"
FILES = sorted(EXPERIMENTS.rglob("*.yaml"))


def test_the_shipped_schema_is_fresh() -> None:
    if not all(map(matches_schema, schema()["x-versions"])):
        pytest.skip("other versions of the libraries are installed than those that the schema was made from")
    # in a process of its own: which of two equal types `typing` remembers depends on what was imported before
    done = subprocess.run([sys.executable, "-m", "tools.settings_schema", "--check"], cwd=REPOSITORY, check=False)
    assert done.returncode == 0, "run: make schema"


def test_it_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))


@pytest.mark.parametrize("file", FILES, ids=lambda p: str(p.relative_to(EXPERIMENTS)))
def test_shipped_files_are_valid_and_name_it(file: Path) -> None:
    """What an editor does with a file: its first line names the schema, which takes its content."""
    first = file.read_text(encoding="utf-8").splitlines()[0]
    mark = "# yaml-language-server: $schema="
    assert first.startswith(mark)
    assert (file.parent / first.removeprefix(mark)).resolve() == SCHEMA_FILE
    jsonschema.Draft202012Validator(schema()).validate(read_yaml(file, "").value)


@pytest.mark.parametrize(
    "text",
    [
        "data: {batch_siz: 3}",
        "data: {batch_size: many}",
        "model: {adapter: {class_path: peft.LoraConfig, init_args: {lora_alph: 3}}}",
        "trainr: {}",
    ],
)
def test_an_editor_sees_what_is_wrong(text: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(yaml.safe_load(text), schema())


def test_another_version_of_a_library_is_left_to_the_real_parser(monkeypatch: pytest.MonkeyPatch) -> None:
    from smoa_lightning.configuration import check_arguments

    refused = ["--trainer.max_epochs", "one"], ["--model.adapter", "peft.LorraConfig"], ["--trainer.max_epoch_s", "1"]
    refused += (["--model.adapter", "peft.LoraConfig", "--model.adapter.rr", "4"],)
    others = {**schema(), "x-versions": dict.fromkeys(schema()["x-versions"], "0.0")}
    cached = (settings.matches_schema, settings.groups, settings.class_group, settings.class_settings)
    monkeypatch.setattr(settings, "schema", lambda: others)
    try:
        for function in cached:
            function.cache_clear()
        for arguments in refused:
            check_arguments("fit", arguments)
        for path, known in (("peft.LoraConfig", False), ("smoa_lightning.adapters.SMoAConfig", True)):
            group = class_group("model.adapter", path)
            assert group is not None
            # a study uses the short names in both cases
            assert {setting.matches_schema for setting in group.settings} == {known}
        with pytest.raises(Exception, match=r"data\.batch_size is 'x'"):
            check_arguments("fit", ["--data.batch_size", "x"])
    finally:
        for function in cached:
            function.cache_clear()


def test_every_setting_of_our_own_classes_has_a_meaning() -> None:
    missing = [s.key for group in groups("fit") for s in group.settings if not s.help]
    for path in class_paths("model.adapter"):
        if path.startswith("smoa_lightning."):
            group = class_group("model.adapter", path)
            assert group is not None
            missing += [s.key for s in group.settings if not s.help]
    assert not missing
