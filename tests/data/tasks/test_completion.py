"""HellaSwag and WinoGrande: clean-up, partial evaluation, rows that break the schema."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import LlamaForCausalLM

from smoa_lightning.data.batches.collate import collate_choices
from smoa_lightning.data.encoding.encode_examples import Encoding, encode_choices
from smoa_lightning.data.tasks import HELLASWAG, WINOGRANDE, RowError
from smoa_lightning.data.tasks.completion import clean
from smoa_lightning.evaluation.scoring import choice_scores, row_log_likelihoods, target_logits

from ..made_rows import ROWS

SCENE = {
    "activity_label": "Washing  dishes",
    "ctx_a": "[header] How to wash up [title] Fill the sink.",
    "ctx_b": "then DORA",
    "endings": ["sings.", "[step] rubs a plate [substeps] with soap.", "leaves [title] Rest.", " é "],
    "source_id": "wikihow~7",
    "label": "1",
}
SENTENCE = {"sentence": "Bo ran to Al as _  was slow.", "option1": "Bo", "option2": "Al", "answer": "2"}


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [
        ("  plain  ", "plain"),
        ("[step] Go.", " Go."),
        ("Sit [title] Rest", "Sit. Rest"),
        ("a [b] c", "a c"),
        ("a   b", "a  b"),  # three spaces: two of them become one
        ("[a [b] c]", " c]"),  # the shortest bracket
        ("[not closed", "[not closed"),
        ("[header]", ""),
    ],
)
def test_clean_up(text, cleaned):
    assert clean(text) == cleaned


def test_hellaswag_prompt_is_that_of_the_evaluation_harness():
    example = HELLASWAG.likelihood.example(HELLASWAG.check(SCENE))
    assert example.prompt == "Washing dishes: How to wash up. Fill the sink. Then dora"
    assert example.choices == (" sings.", "  rubs a plate with soap.", " leaves. Rest.", " é")
    assert example.label == 1
    assert example.target == (example.prompt, "  rubs a plate with soap.")
    assert example.num_bytes == [6, len(" rubs a plate with soap."), len("leaves. Rest."), 2]


def test_hellaswag_rows_of_articles_have_no_second_context():
    example = HELLASWAG.likelihood.example(HELLASWAG.check({**SCENE, "ctx_b": ""}))
    assert example.prompt.endswith("Fill the sink.")


def test_scenes_of_one_video_stay_together():
    other = {**SCENE, "ctx_a": "Later she dries up.", "label": "3"}
    assert HELLASWAG.group(SCENE) == HELLASWAG.group(other) != HELLASWAG.group({**SCENE, "source_id": "wikihow~8"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ctx_a": ""}, "'ctx_a' must not be empty"),
        ({"ctx_b": None}, r"'ctx_b' must be text, not missing \(null\)"),
        ({"endings": "a"}, "'endings' is text, but must be a list of texts"),
        ({"endings": ["a", "b", "c"]}, "'endings' is a list of 3, but must hold 4 texts"),
        ({"endings": ["a", "b", "", "d"]}, "'endings' is a list whose entry 3 must not be empty"),
        ({"endings": ["a", 2, "c", "d"]}, "'endings' is a list whose entry 2 must be text, not a whole number"),
        ({"endings": ["a", "b", "c", "[x] [y]"]}, r"'endings' is a list whose entry 4 holds nothing but marks: '\[x\]"),
        ({"label": "4"}, "'label' is '4', but must be one of '0', '1', '2', '3'"),
        ({"label": ""}, "without a public label"),
        ({"label": 4}, "'label' is 4, but must be one of '0', '1', '2', '3'"),
        ({"label": 1.5}, "'label' must be text, not a number"),
    ],
)
def test_bad_hellaswag_fields(change, message):
    with pytest.raises(RowError, match=message):
        HELLASWAG.check({**SCENE, **change})


def test_endings_in_a_text_table():
    field = HELLASWAG.schema["endings"]
    assert field.check(field.parse('["a", "b", "c", "d"]')) == ["a", "b", "c", "d"]
    with pytest.raises(RowError, match="is text, but must be a list of texts"):
        field.check(field.parse("a, b, c, d"))


def test_winogrande_scores_what_follows_the_option():
    example = WINOGRANDE.likelihood.example(WINOGRANDE.check(SENTENCE))
    assert example.pairs == [("Bo ran to Al as Bo", " was slow."), ("Bo ran to Al as Al", " was slow.")]
    assert example.label == 1
    assert example.target == ("Bo ran to Al as Al", " was slow.")
    assert example.num_bytes == [9, 9]


def test_a_sentence_may_begin_with_its_blank():
    row = {**SENTENCE, "sentence": "_ slept."}
    assert WINOGRANDE.likelihood.example(WINOGRANDE.check(row)).pairs == [("Bo", " slept."), ("Al", " slept.")]


def test_twin_sentences_stay_together():
    twin = {**SENTENCE, "sentence": "Bo ran to Al as _ was fast.", "option1": "al", "option2": "Bo", "answer": "2"}
    assert WINOGRANDE.group(SENTENCE) == WINOGRANDE.group(twin) != WINOGRANDE.group({**SENTENCE, "option2": "Flo"})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sentence": "Bo ran to Al."}, "'sentence' has no blank '_'"),
        ({"sentence": "Bo ran to _ "}, "'sentence' has nothing after its blank '_'"),
        ({"sentence": ""}, "'sentence' must not be empty"),
        ({"option2": 5}, "'option2' must be text, not a whole number"),
        ({"answer": "3"}, "'answer' is '3', but must be one of '1', '2'"),
        ({"answer": ""}, "without a public label"),
        ({"answer": 0}, "'answer' is 0, but must be one of '1', '2'"),
        ({"answer": True}, "'answer' must be text, not true/false"),
    ],
)
def test_bad_winogrande_fields(change, message):
    with pytest.raises(RowError, match=message):
        WINOGRANDE.check({**SENTENCE, **change})


def test_partial_evaluation_equals_a_dense_float64_computation(tiny_backbone: Path, byte_tokenizer) -> None:
    """Both prompts of an item, of different lengths, in one padded batch; against each sequence alone in float64."""
    model = LlamaForCausalLM.from_pretrained(tiny_backbone).eval()
    rows = [WINOGRANDE.check(row) for row in ROWS["winogrande"][:6]]
    examples = [WINOGRANDE.likelihood.example(row) for row in rows]
    items, _ = encode_choices(examples, range(6), str, byte_tokenizer, Encoding())
    batch = collate_choices(items, pad_id=0)
    with torch.no_grad():
        likelihood, tokens = row_log_likelihoods(*target_logits(model, batch))
    scores = choice_scores(likelihood, tokens, batch["num_bytes"], batch["num_choices"])
    dense = model.double()
    expected = []
    for row in rows:
        before, after = row["sentence"].split("_")
        for option in (row["option1"], row["option2"]):
            ids = torch.tensor([byte_tokenizer(before + option + after).input_ids])
            with torch.no_grad():
                logprobs = dense(ids).logits.log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])
            expected.append(logprobs[-len(after.encode()) :].sum())
    torch.testing.assert_close(scores.log_likelihood.double().flatten(), torch.stack(expected), atol=1e-4, rtol=0)
    assert torch.equal(scores.per_byte.argmax(1), scores.log_likelihood.argmax(1))
    assert (scores.log_likelihood[:, 0] - scores.log_likelihood[:, 1]).abs().min() > 1e-3  # the prompts do differ
