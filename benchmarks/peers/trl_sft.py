"""The plain script that a user writes for TRL: SFTTrainer, prompt and completion, completion-only loss."""

from __future__ import annotations

from common import (
    adapted,
    adapter_config,
    arguments,
    backbone,
    first_step_callback,
    mark,
    noting,
    settings,
    tokenizer_and_rows,
    write_marks,
)


def main() -> None:
    """Train."""
    options = arguments()
    from trl import SFTConfig, SFTTrainer

    mark("imported")
    tokenizer, data = tokenizer_and_rows(options)
    model = adapted(options) if options.start else backbone(options)
    mark("loaded")
    own = {"completion_only_loss": True, "packing": options.packing, "max_length": options.max_length}
    trainer = (noting(SFTTrainer) if options.note_losses else SFTTrainer)(
        model=model,
        args=SFTConfig(**settings(options), **own),
        train_dataset=data,
        processing_class=tokenizer,
        peft_config=None if options.start else adapter_config(options),
        callbacks=[first_step_callback()],
    )
    mark("encoded")
    trainer.train()
    mark("trained")
    trainer.save_model(options.output)
    write_marks()


if __name__ == "__main__":
    main()
