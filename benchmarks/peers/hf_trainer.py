"""The plain script that a user writes for peft: HF Trainer, response-only loss, the adapter saved at the end."""

from __future__ import annotations

from typing import Any

from common import adapted, arguments, first_step_callback, mark, noting, settings, tokenizer_and_rows, write_marks


def encode(tokenizer: Any, row: dict[str, str], max_length: int) -> dict[str, list[int]]:
    """Return the token ids of a row, with the prompt masked and EOS as the last target."""
    prompt = tokenizer(row["prompt"], add_special_tokens=False)["input_ids"]
    ids = tokenizer(row["prompt"] + row["completion"], add_special_tokens=False)["input_ids"]
    ids = [*ids, tokenizer.eos_token_id]
    labels = [-100] * len(prompt) + ids[len(prompt) :]
    ids, labels = ids[-max_length:], labels[-max_length:]
    return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels}


def main() -> None:
    """Train."""
    options = arguments()
    import peft  # noqa: F401
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    mark("imported")
    tokenizer, data = tokenizer_and_rows(options)
    data = data.map(lambda row: encode(tokenizer, row, options.max_length), remove_columns=data.column_names)
    mark("encoded")
    model = adapted(options)
    mark("loaded")
    trainer = (noting(Trainer) if options.note_losses else Trainer)(
        model=model,
        args=TrainingArguments(**settings(options)),
        train_dataset=data,
        data_collator=DataCollatorForSeq2Seq(tokenizer, padding=True),
        callbacks=[first_step_callback()],
    )
    trainer.train()
    mark("trained")
    model.save_pretrained(options.output)
    write_marks()


if __name__ == "__main__":
    main()
