"""Common code of the peer scripts: arguments, rows, adapter, notes of times and losses. They import nothing of ours."""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from pathlib import Path
from typing import Any

STARTED = float(os.environ.get("STARTED", time.time()))
marks: dict[str, list[float]] = {}
losses: list[float] = []


def mark(name: str) -> None:
    """Note the wall time since the start of the process, and its CPU time."""
    used = os.times()
    marks[name] = [time.time() - STARTED, used.user + used.system]


def write_marks() -> None:
    """Write the times, the losses and the peak memory to the file in ``MARKS``, if there is one."""
    mark("end")
    if file := os.environ.get("MARKS"):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        Path(file).write_text(json.dumps({"marks": marks, "losses": losses, "peak_mb": peak}), encoding="utf-8")


def arguments() -> argparse.Namespace:
    """Parse the arguments of a peer script."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--backbone", required=True)
    parser.add_argument("--rows", required=True, help="JSON lines with prompt and completion, in the order of training")
    parser.add_argument("--output", required=True)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--max-length", type=int, default=512)
    parser.add_argument("--max-steps", type=int, default=-1)
    parser.add_argument("--rate", type=float, default=1e-3)
    parser.add_argument("--attention", default=None)
    parser.add_argument("--adapter-config", help="folder with adapter_config.json (default: LoRA)")
    parser.add_argument("--start", help="folder of the adapter to start from")
    parser.add_argument("--shuffle", action="store_true", help="a new order, as these programs have by default")
    parser.add_argument("--packing", action="store_true")
    parser.add_argument("--constant", action="store_true", help="a constant learning rate without a warm-up")
    parser.add_argument("--note-losses", action="store_true")
    return parser.parse_args()


def tokenizer_and_rows(options: argparse.Namespace) -> tuple[Any, Any]:
    """Return the tokenizer, and the rows of the file of JSON lines as a data set."""
    from datasets import Dataset
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(options.backbone)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    lines = Path(options.rows).read_text(encoding="utf-8").splitlines()
    return tokenizer, Dataset.from_list([json.loads(line) for line in lines])


def settings(options: argparse.Namespace) -> dict[str, Any]:
    """Return the settings of the trainer that are the same in both peer scripts."""
    schedule = {"lr_scheduler_type": "constant"} if options.constant else {"warmup_steps": 0.06}
    return {
        "output_dir": options.output,
        "per_device_train_batch_size": options.batch_size,
        "num_train_epochs": 1,
        "max_steps": options.max_steps,
        "learning_rate": options.rate,
        "weight_decay": 0.0,
        "max_grad_norm": 1.0,
        "logging_steps": 5,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "use_cpu": not os.environ.get("PEER_CUDA"),
        "bf16": False,
        "train_sampling_strategy": "random" if options.shuffle else "sequential",
        "gradient_checkpointing": False,
        "seed": 0,
        **schedule,
    }


def backbone(options: argparse.Namespace) -> Any:
    """Load the base model."""
    import torch
    from transformers import AutoModelForCausalLM

    attention = {} if options.attention is None else {"attn_implementation": options.attention}
    return AutoModelForCausalLM.from_pretrained(options.backbone, dtype=getattr(torch, options.dtype), **attention)


def adapter_config(options: argparse.Namespace) -> Any:
    """Return the configuration of the adapter."""
    from peft import LoraConfig, PeftConfig

    if options.adapter_config:
        config = PeftConfig.from_pretrained(options.adapter_config)
        config.inference_mode = False
        return config
    targets = ["q_proj", "k_proj", "v_proj", "up_proj", "down_proj"]
    return LoraConfig(r=32, lora_alpha=32, target_modules=targets, task_type="CAUSAL_LM")


def adapted(options: argparse.Namespace) -> Any:
    """Load the base model with its adapter."""
    from peft import PeftModel, get_peft_model

    model = backbone(options)
    if options.start:
        return PeftModel.from_pretrained(model, options.start, is_trainable=True)
    return get_peft_model(model, adapter_config(options))


def noting(trainer_class: Any) -> Any:
    """Return a trainer that notes the loss of every batch, the start and the end of training."""

    class Noting(trainer_class):  # type: ignore[misc]
        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            value = super().compute_loss(*args, **kwargs)
            losses.append(float((value[0] if isinstance(value, tuple) else value).detach()))
            return value

    return Noting


def first_step_callback() -> Any:
    """Return a callback that notes the start of training and the first optimizer step."""
    from transformers import TrainerCallback

    class Marks(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
            mark("training")

        def on_step_end(self, *args: Any, **kwargs: Any) -> None:
            if "step" not in marks:
                mark("step")

    return Marks()
