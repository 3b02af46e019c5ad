"""The figures of ``report``: what they draw, and that nothing in them overlaps, as matplotlib measures it."""

from __future__ import annotations

import itertools
import json
import re
import struct
from pathlib import Path
from typing import Any

import matplotlib
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.text import Text

from smoa_lightning.__main__ import main
from smoa_lightning.ablation.report import front
from smoa_lightning.ablation.report.analysis import Analysis, analyse
from smoa_lightning.ablation.report.dimensions import dimensions
from smoa_lightning.ablation.report.drawing import DPI, WIDTH, NamedFigure, mean
from smoa_lightning.ablation.report.figures import all_figures
from smoa_lightning.ablation.report.figures_heat import colour_range, typical_interval
from smoa_lightning.ablation.report.folder import read_study
from smoa_lightning.ablation.report.paired_cells import SeedPools
from smoa_lightning.ablation.report.ticks import linear_ticks, scale
from smoa_lightning.commands.report import write_report
from smoa_lightning.records.page.theme import SETTINGS, VARIABLES, themed
from tests.ablation.made_study import LR, make_study

LONG = "a_method_with_a_name_that_is_longer_than_the_names_of_the_other_methods"


def grid(**axes: tuple[Any, ...]) -> dict[str, dict[str, Any]]:
    """Return a cell for each combination of values, with slowly rising scores and sizes."""
    cells: dict[str, dict[str, Any]] = {}
    for number, values in enumerate(itertools.product(*axes.values())):
        labels = dict(zip((LR if axis == "lr" else axis for axis in axes), map(str, values), strict=True))
        numbers = {axis: int(value) for axis, value in labels.items() if axis in ("r", "num_subspaces")}
        name = ",".join(f"{axis.rpartition('.')[2]}={label}" for axis, label in labels.items())
        cells[name] = {"labels": labels, "accuracy": 0.45 + 0.01 * number, "parameters": 1000 * (1 + number),
                       "rank": 5.0 + number, **numbers}  # fmt: skip
    return cells


def equal(cells: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return the cells with the same chance of a right item."""
    return {name: {**cell, "accuracy": 0.5} for name, cell in cells.items()}


def analysed(folder: Path, cells: dict[str, dict[str, Any]], **keys: Any) -> Analysis:
    make_study(folder, cells, **{"items": 30, **keys})
    return analyse(read_study(folder))


def drawn(analysis: Analysis) -> dict[str, NamedFigure]:
    with matplotlib.rc_context(SETTINGS):
        return {each.name: each for make in all_figures(analysis) if (each := make()) is not None}


def texts(figure: Any) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]


CROWDED = {
    name: {**cell, "parameters": 10_000 if cell["r"] == 9 else 1000}
    for name, cell in equal(grid(r=tuple(range(1, 10)))).items()
}
STUDIES = {
    "methods": (grid(method=("lora", "hira", LONG), r=(2, 8, 32)), {"search": True}),
    "three numeric axes": (grid(lr=(3e-4, 3e-3), r=(4, 8), num_subspaces=(1, 2)), {}),
    "crowded": (CROWDED, {}),
    "many close values": (grid(method=("lora", "smoa"), r=tuple(range(1, 18))), {"seeds": [0]}),
    "one axis": (grid(warmup=(0.0, 0.03, 0.06, 0.1)), {"metric": "perplexity", "direction": "minimize"}),
}


@pytest.fixture(scope="module")
def drawn_studies(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, NamedFigure]]:
    """The figures of all studies."""
    folder = tmp_path_factory.mktemp("studies")
    return {name: drawn(analysed(folder / name, cells, **keys)) for name, (cells, keys) in STUDIES.items()}


@pytest.mark.parametrize("name", STUDIES)
def test_texts_of_figures_do_not_overlap_and_are_inside(
    name: str, drawn_studies: dict[str, dict[str, NamedFigure]]
) -> None:
    figures = drawn_studies[name]
    assert len(figures) > 2
    for figure in (each.figure for each in figures.values()):
        canvas = FigureCanvasAgg(figure)
        canvas.draw()
        renderer = canvas.get_renderer()  # type: ignore[no-untyped-call]
        shown = [text for text in figure.findobj(Text) if text.get_visible() and text.get_text().strip()]
        # an annotation's own box would include the point that it belongs to
        boxes = {text: Text.get_window_extent(text, renderer) for text in shown}
        for text, box in boxes.items():
            assert box.x0 >= -1, (name, text)
            assert box.x1 <= figure.bbox.width + 1, (name, text)
            assert box.y0 >= -1, (name, text)
            assert box.y1 <= figure.bbox.height + 1, (name, text)
        for (first, a), (second, b) in itertools.combinations(boxes.items(), 2):
            wide, high = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
            assert wide <= 1 or high <= 1, (name, first.get_text(), second.get_text())


def test_every_numeric_axis_has_a_figure_and_every_pair_a_heat_map(
    drawn_studies: dict[str, dict[str, NamedFigure]],
) -> None:
    names = list(drawn_studies["three numeric axes"])
    lines = ["learning_rate", "rank", "subspaces"]
    assert [name for name in names if name in lines] == lines
    maps = [name for name in names if name.startswith("heat_map")]
    assert maps == ["heat_map_learning_rate_rank", "heat_map_learning_rate_subspaces", "heat_map"]


def test_labels_that_set_one_number_are_a_numeric_axis(tmp_path: Path) -> None:
    cells = {
        f"size={label}": {"labels": {"size": label}, "accuracy": 0.5, "parameters": r, "r": r}
        for label, r in (("small", 4), ("large", 64), ("middle", 16))
    }
    (found,) = dimensions(analysed(tmp_path, cells))
    assert found.numbers == {"small": 4, "large": 64, "middle": 16}


def test_axes_that_change_together_are_one_axis(tmp_path: Path) -> None:
    cells = {
        f"r={r},alpha={2 * r}": {"labels": {"r": str(r), "alpha": str(2 * r)}, "accuracy": 0.5, "parameters": r, "r": r}
        for r in (2, 4, 8)
    }
    analysis = analysed(tmp_path, cells)
    assert [(each.axis, each.tied) for each in dimensions(analysis)] == [("r", frozenset({"r", "alpha"}))]
    figure = drawn(analysis)["rank"].figure
    (line,) = [line for line in figure.axes[0].lines if len(line.get_xdata()) == 3]
    assert len(line.get_ydata()) == 3


def test_words_are_no_numeric_axis(tmp_path: Path) -> None:
    analysis = analysed(tmp_path, grid(method=("lora", "2e-3"), flag=("true", "false")))
    assert dimensions(analysis) == []


def test_legends_name_their_axes(drawn_studies: dict[str, dict[str, NamedFigure]]) -> None:
    def title(study: str, name: str) -> str:
        return str(drawn_studies[study][name].figure.legends[0].get_title().get_text())

    assert title("methods", "rank") == title("methods", "parameters") == "method"
    assert title("methods", "sensitivity") == "method / r"
    assert title("three numeric axes", "rank") == "lr / K"
    assert title("three numeric axes", "subspaces") == "lr / r"


def test_curves_differ_in_line_style(drawn_studies: dict[str, dict[str, NamedFigure]]) -> None:
    figures = drawn_studies["methods"]
    for name in ("sensitivity", "rank"):
        assert len({line.get_linestyle() for line in figures[name].figure.axes[0].lines}) > 2, name


# --------------------------------------------------------------------------------------------------------- the heat map


def test_the_colours_of_a_heat_map_are_as_wide_as_a_typical_interval(tmp_path: Path) -> None:
    square = grid(r=(4, 8), num_subspaces=(1, 2))
    noise = analysed(tmp_path / "noise", equal(square))
    low, high, sentence = colour_range(noise.cells)
    width, _ = typical_interval(noise.cells)
    means = [mean(cell) for cell in noise.cells]
    assert width > max(means) - min(means)
    assert high - low == pytest.approx(width)
    assert (high + low) / 2 == pytest.approx((max(means) + min(means)) / 2)
    assert sentence.startswith("The colours span the median 95 % interval over seeds")
    figure = drawn(noise)["heat_map"].figure
    assert figure.axes[0].collections[0].get_clim() == pytest.approx((low, high))
    shown = "\n".join(texts(figure))
    for cell in noise.cells:
        assert cell.estimate is not None
        assert f"[{cell.estimate.low:.3f}, {cell.estimate.high:.3f}]" in shown
    large = {name: {**cell, "accuracy": 0.1 + 0.25 * number} for number, (name, cell) in enumerate(square.items())}
    clear = analysed(tmp_path / "clear", large, items=300)
    low, high, _ = colour_range(clear.cells)
    means = [mean(cell) for cell in clear.cells]
    assert (low, high) == pytest.approx((min(means), max(means)))


def test_one_seed_has_colours_as_wide_as_the_interval_over_items(tmp_path: Path) -> None:
    analysis = analysed(tmp_path, grid(r=(4, 8), num_subspaces=(1, 2)), seeds=[0], items=100)
    _, _, sentence = colour_range(analysis.cells)
    assert "over the items of a run" in sentence
    width, _ = typical_interval(analysis.cells)
    assert width == pytest.approx(2 * 1.96 * 0.05, rel=0.05)  # accuracies near 0.5
    assert "A field without brackets has no interval" in drawn(analysis)["heat_map"].caption


# ------------------------------------------------------------------------------------------------- forest and the front


def front_of(analysis: Analysis) -> list[str]:
    rows = analysis.study.description["untouched"]
    return [cell.name for cell in front.established_front(analysis.cells, "parameters", "maximize", rows)]


def test_no_front_is_drawn_if_nothing_is_established(tmp_path: Path) -> None:
    analysis = analysed(tmp_path, equal(grid(r=(2, 4, 8, 16))))
    assert front_of(analysis) == []
    found = drawn(analysis)["parameters"]
    assert "established front" not in texts(found.figure)
    assert "No front is drawn" in found.caption


def test_a_front_joins_cells_that_are_established_to_be_better(tmp_path: Path) -> None:
    accuracies = {"r=2": 0.2, "r=4": 0.21, "r=8": 0.8, "r=16": 0.8}
    cells = {name: {**cell, "accuracy": accuracies[name]} for name, cell in grid(r=(2, 4, 8, 16)).items()}
    analysis = analysed(tmp_path, cells, seeds=range(5), items=60)
    assert front_of(analysis) == ["r=2", "r=8"]
    assert "established front" in texts(drawn(analysis)["parameters"].figure)
    two = analysed(tmp_path / "two", cells, seeds=range(2), items=60)  # two seeds establish nothing
    assert front_of(two) == []


def test_only_cells_with_the_same_rows_share_a_seed_variance_of_the_front(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    families: list[list[str]] = []

    class Counted(SeedPools):
        def __init__(self, cells: Any, pool: Any) -> None:
            families.append([cell.name for cell in cells])
            super().__init__(cells, pool)

    monkeypatch.setattr(front, "SeedPools", Counted)
    cells = analysed(tmp_path, grid(r=(2, 4, 8, 16)), items=20).cells
    rows = {"r=2": "r=2", "r=4": "r=4", "r=8": "r=2", "r=16": "r=4"}
    front.established_front(cells, "parameters", "maximize", rows)
    assert families == [["r=2", "r=8"], ["r=4", "r=16"]]


def test_the_forest_names_its_baseline(tmp_path: Path) -> None:
    figures = drawn(analysed(tmp_path, grid(method=("lora", "hira"), r=(2, 8))))
    assert "0 = baseline method=lora,r=2" in texts(figures["forest"].figure)


def _without(folder: Path, *keys: str) -> Analysis:
    file = folder / "study.json"
    description = json.loads(file.read_text())
    file.write_text(json.dumps(description | {key: {} for key in keys}))
    return analyse(read_study(folder))


def test_a_study_without_a_baseline_begins_with_the_base_model_or_with_the_means(tmp_path: Path) -> None:
    make_study(tmp_path, grid(r=(2, 8)), items=30)
    forest = drawn(_without(tmp_path, "baselines"))["forest"]
    assert "0 = base model before training" in texts(forest.figure)
    forest = drawn(_without(tmp_path, "baselines", "untouched"))["forest"]
    assert "no difference was tested" in forest.caption
    assert "acc on the report rows (higher is better)" in texts(forest.figure)


# ------------------------------------------------------------------------------------------------------------ the files


def test_figures_as_pdf_and_png(tmp_path: Path) -> None:
    cells = {name: {**cell, "parameters": 1000, "rank": -1.0} for name, cell in grid(method=("lora", "hira")).items()}
    make_study(tmp_path, cells, items=30)
    write_report(tmp_path, tmp_path / "out", ("svg", "pdf", "png"))
    figures = tmp_path / "out" / "figures"
    for file in figures.glob("*.png"):
        width, height = struct.unpack(">II", file.read_bytes()[16:24])
        box = re.search(rb"/MediaBox \[ ?0 0 ([\d.]+) ([\d.]+) ?\]", (figures / f"{file.stem}.pdf").read_bytes())
        assert box is not None
        assert width == round(WIDTH * DPI) == 2 * round(WIDTH * 96)  # two pixels for each pixel of the page
        assert float(box[1]) == pytest.approx(WIDTH * 72)
        assert height == pytest.approx(float(box[2]) * DPI / 72, abs=1)
        content = (figures / f"{file.stem}.pdf").read_bytes()
        assert b"/Type3" not in content  # publishers refuse such fonts
        assert b"/CreationDate" not in content
    assert len(list(figures.glob("*.pdf"))) == len(list(figures.glob("*.svg"))) > 0
    write_report(tmp_path, tmp_path / "out")
    assert {file.suffix for file in figures.iterdir()} == {".svg"}  # older files could show other numbers


@pytest.mark.parametrize(
    ("given", "near"), [("pdff", "pdf"), ("svg,jpg", "png"), ("", "svg, pdf, png")], ids=["typo", "jpg", "empty"]
)
def test_an_unknown_format_is_refused_in_a_sentence(given: str, near: str, tmp_path: Path, capsys: Any) -> None:
    assert main(["report", str(tmp_path), "--figures", given]) == 2
    message = capsys.readouterr().err
    assert "is not a format of figures: use " in message
    assert set(near.split(", ")) <= set(message.strip().rpartition("use ")[2].split(", "))
    assert message.count("\n") == 1


# ------------------------------------------------------------------------------------------------------------- the page


def test_the_page_begins_with_one_sentence_and_the_forest(tmp_path: Path) -> None:
    make_study(tmp_path, equal(grid(method=("lora", "hira"), r=tuple(range(1, 12)))), items=30)
    _, document = write_report(tmp_path, tmp_path / "out")
    text = (tmp_path / "out" / "report.html").read_text()
    assert [type(block).__name__ for block in document.blocks[:3]] == ["Paragraph", "Picture", "Paragraph"]
    lead = re.search(r'<p class="lead">([^<]*)', text.replace("<wbr>", ""))
    assert lead is not None
    assert lead[1] == (
        "None of 21 cells is shown to differ from the baseline method=lora,r=1: the differences may be chance."
    )
    assert re.search(r"<summary>\d+ more sentences</summary>", text)
    assert re.search(r"<summary>All finished final runs\. 66 rows</summary>", text)


def test_figures_of_a_page_have_colours_for_dark_screens(tmp_path: Path) -> None:
    make_study(tmp_path, grid(r=(2, 8), num_subspaces=(1, 2)), items=30, search=True)
    write_report(tmp_path, tmp_path / "out")
    page = (tmp_path / "out" / "report.html").read_text()
    style, _, body = page.partition("</style>")
    dark = style[style.index("prefers-color-scheme: dark") :]
    used = set(re.findall(r"var\(--([\w-]+)", body))
    assert {"ink", "paper", "figure-muted", "figure-1"} <= used
    for name in VARIABLES.values():
        assert f"--{name}:" in dark
    colours = {colour.lower() for svg in re.findall(r"<svg.*?</svg>", body, re.DOTALL) for colour in
               re.findall(r"(?<!, )#[0-9a-fA-F]{6}", svg)}  # fmt: skip
    # what is left are the fields of heat maps and the texts inside, which are the same on a dark page
    assert not colours & set(VARIABLES)
    assert themed("fill: #0072b2") == "fill: var(--figure-1, #0072b2)"


@pytest.mark.parametrize(("low", "high"), [(0.1, 0.1004), (-3.0, 5.0), (0.0, 1e6), (99.0, 101.0)])
def test_linear_ticks_are_round_and_cover_the_range(low: float, high: float) -> None:
    places = linear_ticks(low, high)
    assert 3 <= len(places) <= 6
    assert low - 1e-12 <= places[0]
    assert places[-1] <= high + 1e-12
    steps = {round(b - a, 12) for a, b in itertools.pairwise(places)}
    assert max(steps) - min(steps) < 1e-9


@pytest.mark.parametrize("values", [[0.5], [0.0], [-1.0, -1.0], [1e-9, 1.0]], ids=str)
def test_a_scale_takes_any_values(values: list[float]) -> None:
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    scale(axes.xaxis, values)
    low, high = axes.get_xlim()
    assert low < min(values) <= max(values) < high
