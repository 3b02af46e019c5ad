"""Protocols, few-shot prompts, mixtures, and reporting on tasks other than those trained on."""

from __future__ import annotations

from collections import Counter

import pytest

from smoa_lightning.backbones.limits import Limits
from smoa_lightning.common.errors import UserError
from smoa_lightning.data.batches.loaders import scoring_loader
from smoa_lightning.data.datamodule import TaskDataModule

from .conftest import character_tokenizer
from .made_rows import NUM_TRAIN, write_folder

LEFT = NUM_TRAIN - 2  # training rows of a folder
ROOMY = {"max_length": 4000, "selection_rows": 2, "cache": False}


@pytest.fixture
def folder(tmp_path):
    for task in ("piqa", "boolq", "winogrande"):
        write_folder(tmp_path / task, task)
    return tmp_path


def make(folder, task="piqa", **settings):
    data = TaskDataModule(task, "local", path=str(folder), **ROOMY | settings)
    data.tokenizer = character_tokenizer()
    return data


def decoded(data, ids):
    return data.tokenizer.decode(ids).replace(" ", "")


def test_one_key_switches_the_protocol(folder):
    choices = make(folder / "piqa", protocol="likelihood")
    replies = make(folder / "piqa", protocol="generation")
    choices.setup("fit"), replies.setup("fit")
    assert "num_choices" in next(iter(choices.val_dataloader()))
    batch = next(iter(replies.val_dataloader()))
    assert all(answer in ("solution1", "solution2") for answer in batch["answer"])
    example = replies.example("train", replies.indices("train")[0])
    assert example.response.endswith(f"the correct answer is {example.answer}")
    assert replies.sets.primary("selection") == replies.sets.primary("report") == "acc"
    assert make(folder / "piqa").sets.all["piqa"].protocol.name == "likelihood"  # the default


def test_both_protocols_train_on_the_right_answer(folder):
    for protocol in ("likelihood", "generation"):
        data = make(folder / "piqa", protocol=protocol)
        data.setup("fit")
        (row, *_) = data.sets.training_items()
        example = data.example("train", data.indices("train")[0])
        wanted = [i for i, label in enumerate(row.labels) if label != -100]
        assert decoded(data, row.ids[wanted[0] : -1]).endswith("".join(example.target[1].split()).replace("(", "<unk>"))


def test_a_protocol_that_a_task_has_not(folder):
    with pytest.raises(UserError, match=r"task 'gsm8k' has no protocol 'likelihood'; it has generation"):
        TaskDataModule("gsm8k", protocol="likelihood")


def test_shots_are_before_scored_prompts_only(folder):
    plain, shots = make(folder / "piqa"), make(folder / "piqa", num_fewshot=2)
    plain.setup("fit"), shots.setup("fit")
    assert list(plain.sets.training_items()) == list(shots.sets.training_items())
    prefix = "".join(shots.sets.all["piqa"].shots())
    assert prefix.count("Question:") == prefix.count("\n\n") == 2
    solved = {"".join(shots.example("train", i).target) + "\n\n" for i in shots.indices("train")}
    first, second = (text + "\n\n" for text in prefix.split("\n\n")[:2])
    assert {first, second} <= solved  # none of the rows that select or are reported
    before, after = (data.sets.trained["piqa"].items("selection")[0].rows[0] for data in (plain, shots))
    assert len(after) == len(before) + len(prefix)
    assert after.ids[-len(before) :] == before.ids
    assert after.labels[-len(before) :] == before.labels
    assert set(after.labels[: len(prefix)]) == {-100}


def test_more_shots_than_rows(folder):
    with pytest.raises(UserError, match=r"num_fewshot is 99.*only"):
        make(folder / "piqa", num_fewshot=99).setup("test")


def test_report_rows_can_be_limited(folder):
    whole, some = make(folder / "piqa"), make(folder / "piqa", limit_report_rows=3)
    assert len(some.indices("report")) == 3
    assert set(some.indices("report")) < set(whole.indices("report"))
    other = make(folder / "piqa", limit_report_rows=3, seed=1)  # seeds are compared on the same items
    assert other.indices("report") == some.indices("report")
    assert other.indices("selection") != some.indices("selection")


def test_a_mixture_trains_and_reports_on_each_task(folder):
    data = make(folder, "mixture", mixture=["piqa", "boolq"])
    data.setup("fit"), data.setup("test")
    assert len(data.sets.training_items()) == 2 * (LEFT - 2)
    assert len(data.val_dataloader()) == len(data.test_dataloader()) == 2
    assert data.provenance["trained"] == ["piqa", "boolq"]
    assert data.summary()["boolq"]["train"]["rows"] == LEFT - 2
    assert data.sets.primary("report") == "acc"


def test_a_weighted_mixture_has_its_proportions(folder):
    data = make(folder, "mixture", mixture={"piqa": 3, "boolq": 1}, limit_train_rows=40)
    data.setup("fit")
    own = {name: Counter(row.ids for row in rows.items("train")) for name, rows in data.sets.trained.items()}
    mixed = Counter(row.ids for row in data.sets.training_items())
    assert data.summary()["mixture"]["rows"] == {"piqa": 30, "boolq": 10}
    assert data.summary()["mixture"]["train"]["rows"] == 40
    assert sum(mixed[ids] for ids in own["piqa"]) == 30
    assert sum(mixed[ids] for ids in own["boolq"]) == 10


def test_tasks_that_agree_on_no_metric_are_selected_by_nll(folder):
    data = make(folder, "mixture", mixture=["piqa", "hellaswag"])
    assert data.sets.primary("selection") == "nll"  # acc and acc_norm


def test_reporting_on_other_tasks(folder):
    data = make(folder, "piqa", report_tasks=["boolq", "winogrande"])
    data.setup("fit"), data.setup("test")
    assert list(data.sets.scored("selection")) == ["piqa"]
    assert list(data.sets.scored("report")) == ["boolq", "winogrande"]
    assert len(data.test_dataloader()) == 2
    label = data.example("report", data.sets.reported["winogrande"].indices("report")[0], "winogrande").label
    assert label in (0, 1)


def test_rows_that_are_not_reported_cannot_select_as_published(folder):
    with pytest.raises(UserError, match=r"but data\.report_tasks has no piqa, so no report rows would select"):
        make(folder, "piqa", report_tasks=["boolq"], selection="best_epoch_on_report", selection_rows=None)
    data = make(folder, "piqa", report_tasks=["piqa", "boolq"], selection="best_epoch_on_report", selection_rows=None)
    assert data.sets.all["piqa"].selects_on_report


def test_the_context_of_the_model_bounds_prompts_and_replies(folder):
    data = make(folder / "piqa", protocol="generation", max_length=500, max_new_tokens=60)
    data.sets.fit_context(Limits(400))
    data.setup("test")
    assert data.encoding.max_length == 400
    assert max(len(prompt) for batch in data.test_dataloader() for prompt in batch["prompt"]) == 340
    data = make(folder / "piqa", protocol="generation", max_length=500, max_new_tokens=420)
    data.sets.fit_context(Limits(500))
    data.setup("test")
    assert max(len(prompt) for batch in data.test_dataloader() for prompt in batch["prompt"]) == 80
    data = make(folder / "piqa", protocol="generation", max_length=500, max_new_tokens=500)
    data.sets.fit_context(Limits(500))
    with pytest.raises(UserError, match=r"no room for a prompt.* 499"):
        data.setup("test")


def test_too_few_rows_for_the_processes(folder):
    data = make(folder / "piqa", limit_report_rows=3)
    data.setup("test")
    for processes, sizes in ((2, [1, 2]), (3, [1, 1, 1])):
        items = data.sets.reported["piqa"].items("report")
        loaders = [scoring_loader(items, 16, None, 0, place=(rank, processes)) for rank in range(processes)]
        assert sorted(sum(len(batch["row"]) for batch in loader) for loader in loaders) == sizes
    with pytest.raises(UserError, match="3 rows to score are too few for 4 processes"):
        scoring_loader(items, 16, None, 0, place=(0, 4))


@pytest.mark.parametrize("stage", ["fit", "test"])
def test_a_chat_template_is_refused_where_choices_are_scored(folder, stage):
    data = make(folder / "piqa", chat_template=True)
    data.tokenizer.chat_template = "{{ messages[-1].content }}"
    with pytest.raises(
        UserError, match=r"chat_template: true, but task 'piqa' .* likelihood.*false or null\.$"
    ) as message:
        data.setup(stage)
    assert "\n" not in str(message.value)
    data = make(folder / "piqa")  # null follows the task: plain text, template or not
    data.tokenizer.chat_template = "{{ messages[-1].content }}"
    data.setup(stage)


@pytest.mark.parametrize("task", ["chat", "instruction"])
def test_shots_are_refused_under_a_chat_template(tmp_path, task):
    write_folder(tmp_path, task)
    data = make(tmp_path, task, num_fewshot=1, chat_template=True)
    data.tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}>{{ m.content }}{{ eos_token }}{% endfor %}"
    with pytest.raises(UserError, match=r"num_fewshot.*set data.chat_template: false"):
        data.setup("test")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"task": "mixture"}, "at least two tasks"),
        ({"task": "mixture", "mixture": ["piqa", "pika"]}, "unknown task 'pika'.*piqa"),
        ({"mixture": ["piqa", "boolq"]}, "set data.task: mixture"),
        ({"task": "mixture", "mixture": ["piqa", "boolq"], "repository": "x/y"}, "for one task, not for several"),
        ({"num_fewshot": -1}, "num_fewshot is -1"),
        ({"num_beams": 0}, "num_beams is 0"),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(UserError, match=message):
        TaskDataModule(**settings)


@pytest.mark.parametrize("settings", [{"num_beams": 2}, {"max_new_tokens": 8}, {"bert_score": "x"}, {"num_beams": 1}])
def test_settings_of_replies_that_no_task_writes_are_named(settings, caplog):
    TaskDataModule(**settings)
    TaskDataModule(**settings, protocol="generation")
    ((name, value),) = settings.items()
    expected = [f"data.{name} is {value}, but the protocol is likelihood"] if value != 1 else []
    assert [record.message.partition(", and only")[0] for record in caplog.records] == expected
