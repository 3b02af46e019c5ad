"""The shipped studies: their names, the settings of their runs on the command line, and reading without torch."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from smoa_lightning.ablation.planning.plan import plan
from smoa_lightning.ablation.study.expand import load_study
from smoa_lightning.ablation.study.study_compatibility import compare_descriptions, describe_study
from smoa_lightning.configuration import check_arguments

from ..configuration.test_arguments import full_parser

ROOT = Path(__file__).parents[2]
STUDIES = sorted((ROOT / "ablations").glob("*.yaml"))
OVERLAYS = sorted((ROOT / "ablations/overlays").glob("*.yaml"))
CALIBRATION = sorted((ROOT / "ablations/calibration").glob("*.yaml"))
SMOLLM2 = ROOT / "ablations/smollm2"
EXPERIMENTS = ROOT / "experiments"


def test_all_studies_are_shipped() -> None:
    names = {
        "subspace",
        "rank",
        "num_subspaces",
        "components",
        "methods",
        "search",
        "smoke",
        "reviewers",
        "expected_accuracy",
    }
    assert {file.stem for file in STUDIES} == names


@pytest.mark.parametrize("overlay", [None, *OVERLAYS], ids=lambda p: p.stem if p else "alone")
@pytest.mark.parametrize("file", STUDIES, ids=lambda p: p.stem)
def test_every_run_of_a_shipped_study_passes_the_early_check(file: Path, overlay: Path | None) -> None:
    study = load_study([file] if overlay is None else [file, overlay])
    assert study.name == file.stem
    assert study.baselines.keys() == {cell.name for cell in study.cells}
    runs = list(study.final_runs({c.name: {p.key: p.example for p in c.parameters} for c in study.cells}))
    assert len({run.signature for run in runs}) == len(runs) == plan(study).final_runs
    for run in runs:
        seed = f"--seed_everything={run.seed}"
        if run.seed == study.seeds[0]:
            check_arguments("fit", list(run.arguments))
            without_seed = [word for word in run.arguments if word != seed]
        assert [
            word for word in run.arguments if word != seed
        ] == without_seed  # runs with different seeds differ in nothing else
        source = run.cell.settings["model"]["backbone"]["source"]
        assert source == ("hub" if overlay is not None and overlay.stem == "smollm2" else "embedded")


@pytest.mark.parametrize("file", sorted((ROOT / "ablations").rglob("*.yaml")), ids=lambda p: p.stem)
def test_the_number_of_cells_that_a_comment_names_is_right(file: Path) -> None:
    comment = " ".join(line for line in file.read_text(encoding="utf-8").splitlines() if line.startswith("#"))
    named = re.search(r"(\d+) cells x", comment)
    if named is not None:
        assert len(load_study([file]).cells) == int(named[1])


OVERLAYS_OF_CALIBRATIONS = {"phone_book": ["equal_rank"]}


def test_every_overlay_of_a_calibration_is_tested() -> None:
    files = {file.stem for file in CALIBRATION[0].parent.glob("overlays/*.yaml")}
    assert files == {name for names in OVERLAYS_OF_CALIBRATIONS.values() for name in names}


@pytest.mark.parametrize("file", CALIBRATION, ids=lambda p: p.stem)
def test_a_calibration_is_a_study_of_embedded_models(file: Path) -> None:
    overlays = [file.parent / f"overlays/{name}.yaml" for name in OVERLAYS_OF_CALIBRATIONS.get(file.stem, ())]
    for files in ([file], *([file, overlay] for overlay in overlays)):
        study = load_study(files)
        assert study.baselines.keys() == {cell.name for cell in study.cells}
        for cell in study.cells:
            run = study.final_run(cell, study.seeds[0], {p.key: p.example for p in cell.parameters})
            check_arguments("fit", list(run.arguments))
            assert cell.settings["model"]["backbone"]["source"] == cell.settings["data"]["source"] == "embedded"


# A study, its overlays, and that of its first piece
REAL = [
    ("does_rank_help", [], "rank_first"),
    ("does_rank_help", ["openbookqa"], "rank_first"),
    ("does_rank_help", ["convai2", "rows_4000"], "rank_first"),
    ("do_subspaces_help", [], "subspaces_first"),
    ("what_does_it_forget", [], "forget_first"),
]


@pytest.mark.parametrize(("name", "overlays", "first"), REAL)
def test_a_study_on_a_real_model_keeps_the_runs_of_its_first_piece(name: str, overlays: list[str], first: str) -> None:
    files = [SMOLLM2 / f"{name}.yaml", *(SMOLLM2 / f"overlays/{overlay}.yaml" for overlay in overlays)]
    piece, whole = load_study([*files, SMOLLM2 / f"overlays/{first}.yaml"]), load_study(files)
    assert compare_descriptions(describe_study(piece), describe_study(whole), "x")  # changes, and no contradiction
    assert len(piece.cells) * len(piece.seeds) < len(whole.cells) * len(whole.seeds)
    assert whole.baselines.keys() == {cell.name for cell in whole.cells}
    assert whole.margins.keys() == {whole.objective.metric, *whole.secondary}
    for cell in whole.cells:
        run = whole.final_run(cell, 0, {p.key: p.example for p in cell.parameters})
        check_arguments("fit", list(run.arguments))
        model = cell.settings["model"]
        assert model["backbone"]["name"] == "HuggingFaceTB/SmolLM2-135M"
        if model.get("adapter") is None:
            assert model["backbone"]["dtype"] == "float32"
        elif "SMoA" in model["adapter"]["class_path"]:
            assert model["adapter"]["init_args"]["forward"] == "split"


def test_the_first_piece_of_sst2_is_a_part_of_it() -> None:
    """Each method has the same rates; the head alone searches the rate that the other heads have fixed."""
    file = ROOT / "ablations/minilm/sst2.yaml"
    piece, whole = load_study([file, file.parent / "overlays/sst2_first.yaml"]), load_study([file])
    assert {cell.name for cell in piece.cells} < {cell.name for cell in whole.cells}
    assert (len(piece.cells), len(whole.cells)) == (5, 13)
    for cell in whole.cells:
        (rate,) = cell.parameters
        assert rate.key == "model.optimizer.init_args.lr"
        assert (cell.settings["model"]["head_lr"] is None) == (cell.name == "method=head")
        run = whole.final_run(cell, 0, {rate.key: rate.example})
        check_arguments("fit", list(run.arguments))
    assert compare_descriptions(describe_study(piece), describe_study(whole), "x")


def test_smoke_is_two_by_two_with_two_seeds() -> None:
    study = load_study([ROOT / "ablations/smoke.yaml"])
    assert (len(study.cells), len(study.axes), study.seeds) == (4, 2, (0, 1))


@pytest.fixture(scope="module")
def fit_parser() -> Any:
    return full_parser("fit")


def leaves(value: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    return {k: v for name, inner in value.items() for k, v in leaves(inner, f"{prefix}.{name}".lstrip(".")).items()}


CASES = [(file, overlay) for file in STUDIES for overlay in ([None] if file.stem != "smoke" else [None, *OVERLAYS])]


@pytest.mark.parametrize(("file", "overlay"), CASES, ids=lambda p: p.stem if p else "alone")
def test_composed_settings_are_those_of_the_command_line(file: Path, overlay: Path | None, fit_parser: Any) -> None:
    """The reference for composing files, classes and flags is the full parser (jsonargparse)."""
    study = load_study([file] if overlay is None else [file, overlay])
    for cell in study.cells if study.name == "methods" else study.cells[-1:]:  # each strategy once
        run = study.final_run(cell, study.seeds[0], {p.key: p.example for p in cell.parameters})
        words = ["--base", "null"]  # the base files are given one by one here
        parsed = fit_parser.parse_args(["fit", *expanded(run.arguments), *words]).fit.as_dict()
        parsed = leaves({name: value for name, value in parsed.items() if name != "config"})
        settings = study.resolver.settings(cell.files, {**cell.flags, **run.parameters, "seed_everything": run.seed})
        for key, value in leaves(settings).items():
            assert parsed[key] == value, key
        defaults = default_settings(fit_parser, settings["model"]["adapter"]["class_path"])
        for key in parsed.keys() - leaves(settings).keys():
            assert parsed[key] == defaults[key], f"{key} was set, but the settings do not have it"


KNOWN_DEFAULTS: dict[str, dict[str, Any]] = {}


def default_settings(fit_parser: Any, class_path: str) -> dict[str, Any]:
    """Return all settings of a run without files, with a strategy of this class."""
    if class_path not in KNOWN_DEFAULTS:
        named = [
            "--model.adapter",
            class_path,
            "--model.backbone.source",
            "auto",
        ]  # a setting that is null has no defaults for its own settings
        KNOWN_DEFAULTS[class_path] = leaves(fit_parser.parse_args(["fit", *named]).fit.as_dict())
    return KNOWN_DEFAULTS[class_path]


def expanded(arguments: tuple[str, ...]) -> list[str]:
    from smoa_lightning.configuration import expand_bases

    return expand_bases(list(arguments))


def test_a_study_is_read_without_torch() -> None:
    files = [str(ROOT / "ablations" / name) for name in ("methods.yaml", "search.yaml")]
    code = f"""
import sys
from pathlib import Path
from smoa_lightning.ablation.study.expand import load_study
from smoa_lightning.ablation.planning.plan import plan
from smoa_lightning.ablation.study.study_compatibility import describe_study
for file in {files!r}:
    study = load_study([Path(file)])
    describe_study(study), plan(study)
heavy = {{"torch", "lightning", "transformers", "peft", "optuna"}} & sys.modules.keys()
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
