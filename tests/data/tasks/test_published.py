"""Published rules: answers of difficult replies as the published code gives them, and settings that contradict them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from smoa_lightning.common.errors import UserError
from smoa_lightning.data.datamodule import TaskDataModule
from smoa_lightning.data.tasks import Generation, get_task, protocol_of
from smoa_lightning.data.tasks.published import RULES
from smoa_lightning.records.record import signature

# The answers are those of the functions of LLM-Adapters (commonsense_evaluate.py, evaluate.py at its newest commit).
REPLIES = [json.loads(line) for line in (Path(__file__).parent / "published_replies.jsonl").read_text().splitlines()]


def published(task: str) -> Generation:
    protocol = protocol_of(get_task(task), None, "llm_adapters")
    assert isinstance(protocol, Generation)
    assert protocol.answer is not None
    return protocol


@pytest.mark.parametrize("task", dict.fromkeys(reply["task"] for reply in REPLIES))
def test_answers_are_those_of_the_published_code(task: str) -> None:
    answer = published(task).answer
    assert answer is not None
    for reply in (each for each in REPLIES if each["task"] == task):
        found = answer(reply["reply"].strip())
        assert (float(found) if found and task == "gsm8k" else found) == reply["answer"], reply


def test_the_rules_differ_from_those_of_the_package_on_some_replies() -> None:
    reply = {"option12": "option1", "Option1": None}
    assert {text: published("winogrande").answer(text) for text in reply} == reply  # type: ignore[misc]
    own = protocol_of(get_task("winogrande"), "generation")
    assert {text: own.answer(text) for text in reply} == {"option12": None, "Option1": "option1"}  # type: ignore[union-attr, misc]


def test_numbers_are_right_within_a_thousandth() -> None:
    gsm8k = published("gsm8k")
    found = {text: gsm8k.is_right(text, "72") for text in ("72", "72.", "72.0009", "71.9991", "72.01", "-72")}
    assert found == {"72": True, "72.": True, "72.0009": True, "71.9991": True, "72.01": False, "-72": False}
    assert not gsm8k.is_right(None, "72")


@pytest.mark.parametrize("task", RULES["llm_adapters"])
def test_beams_and_lengths(task: str) -> None:
    protocol = published(task)
    assert (protocol.num_beams, protocol.max_new_tokens) == (4, 256 if task == "gsm8k" else 32)
    assert (protocol.stop, protocol.selection_metric, protocol.rules) == ((), "nll", "llm_adapters")


def test_mathematics_has_the_prompt_of_the_other_tasks() -> None:
    example = published("gsm8k").example({"question": "How many?", "answer": "2*3 = <<2*3=6>>6.\n#### 6"})
    begin = "Below is an instruction that describes a task. Write a response that appropriately completes the request."
    assert example.target == (f"{begin}\n\n### Instruction:\nHow many?\n\n### Response:\n", "2*3 = 6.\n#### 6")
    assert example.answer == "6"


def test_tasks_and_settings_that_the_rules_do_not_have() -> None:
    with pytest.raises(
        UserError, match=r"data\.rules: llm_adapters has no rules for task 'metamath_qa'; it has .*gsm8k"
    ):
        TaskDataModule("metamath_qa", rules="llm_adapters")
    with pytest.raises(
        UserError, match=r"data\.rules: llm_adapters are rules of generated replies, but data\.protocol"
    ):
        TaskDataModule("piqa", rules="llm_adapters", protocol="likelihood")
    with pytest.raises(UserError, match=r"data\.rules: unknown rules 'llm_adapter'; did you mean llm_adapters\?"):
        TaskDataModule("piqa", rules="llm_adapter")  # type: ignore[arg-type]
    for name, value in (("num_beams", 1), ("max_new_tokens", 64), ("num_fewshot", 2), ("chat_template", True)):
        with pytest.raises(UserError, match=rf"data\.{name} is {value}, but data\.rules: llm_adapters decides it"):
            TaskDataModule("piqa", rules="llm_adapters", **{name: value})  # type: ignore[arg-type]


def test_runs_without_rules_keep_their_signatures() -> None:
    before, now = (
        {"data": {"task": "piqa", "num_beams": 1}},
        {"data": {"task": "piqa", "num_beams": None, "rules": None}},
    )
    assert signature(before, {}) == signature(now, {})
    assert signature(before, {}) != signature({"data": {**now["data"], "rules": "llm_adapters"}}, {})
