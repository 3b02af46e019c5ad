"""Files that ``model.budget.like`` names and that hold no strategy."""

from __future__ import annotations

from pathlib import Path

import pytest

from smoa_lightning.adapters.budget import Budget
from smoa_lightning.common.errors import UserError


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (None, r"the file 'x.yaml' does not exist; '.' holds other.yaml"),
        ("model: [", "not valid YAML"),
        ("data: {}", "names no trainable strategy"),
        ("model: {adapter: null, frozen: true}", "names no trainable strategy"),
        ("model: {adapter: {class_path: peft.LorraConfig}}", "LorraConfig"),
        ("model: {adapter: {class_path: peft.LoraConfig, init_args: {rank: 3}}}", "rank"),
        ("model: {adapter: {class_path: torch.nn.Identity}}", "not a peft.PeftConfig"),
    ],
)
def test_a_strategy_that_cannot_be_read_is_one_sentence(
    content: str | None, match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "other.yaml").write_text("")
    if content is not None:
        (tmp_path / "x.yaml").write_text(content)
    with pytest.raises(UserError, match=match):
        Budget.parse({"like": "x.yaml"})
    with pytest.raises(UserError, match="one key, 'like'"):
        Budget.parse({"similar": "x.yaml"})
