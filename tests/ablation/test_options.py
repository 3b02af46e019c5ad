"""Unknown options of ``ablate``: the message names the option that was probably meant, else the nearest keys."""

from __future__ import annotations

import pytest

from smoa_lightning.ablation.execution.options import parse_options
from smoa_lightning.common.errors import UserError


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--output", "ablate has no option --output; the nearest are --root, --folder"),
        ("--output-dir", "ablate has no option --output-dir; the nearest are --root, --folder"),
        ("--workrs", "ablate has no option --workrs; the nearest is --workers"),
        ("--stor", "ablate has no option --stor; the nearest is --storage"),
        ("--storge", "ablate has no option --storge; the nearest is --storage"),
    ],
)
def test_an_unknown_option_names_what_was_meant(flag: str, message: str) -> None:
    with pytest.raises(UserError) as raised:
        parse_options(["--config", "ablations/smoke.yaml", flag, "x"])
    assert str(raised.value) == message


def test_the_last_word_of_a_setting_is_no_option() -> None:
    options = parse_options(["--config", "ablations/smoke.yaml", "--lr", "1e-3", "--config_C", "vector"])
    assert options.study_flags == (("lr", "1e-3"), ("config_C", "vector"))
