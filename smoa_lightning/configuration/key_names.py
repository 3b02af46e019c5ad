"""Names of settings as users write them: full keys, last words such as ``lr``, and words of other programs."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

from smoa_lightning.common.errors import most_alike, the_nearest

# The last word of a setting in other programs -> its last words here.
OTHER_WORDS = {
    "rank": ("r",),
    "lora_r": ("r",),
    "lora_rank": ("r",),
    "learning_rate": ("lr",),
    "alpha": ("alpha", "lora_alpha"),
    "dropout": ("dropout", "lora_dropout"),
    "seed": ("seed_everything",),
    "epochs": ("max_epochs",),
    "num_train_epochs": ("max_epochs",),
    "steps": ("max_steps",),
    "max_seq_length": ("max_length",),
    "cutoff_len": ("max_length",),
    "per_device_train_batch_size": ("batch_size",),
    "gradient_accumulation_steps": ("accumulate_grad_batches",),
    "warmup_ratio": ("warmup",),
    "warmup_steps": ("warmup",),
    "lr_scheduler_type": ("decay",),
    "schedule": ("decay",),
    "scheduler": ("decay",),
    "model_name_or_path": ("path", "name"),
    "dataset": ("task", "path"),
    "output_dir": ("root", "folder"),
    "output": ("root", "folder"),
}


def near_keys(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """Return the keys that a wrong name probably means.

    These are the keys that begin with it, those with its other word as last word, and those of which all words or the
    last words look most like it.

    >>> near_keys("model.adapter.rank", ["model.adapter.r", "model.adapter.rank_split", "model.warmup"], 2)
    ['model.adapter.r', 'model.adapter.rank_split']
    >>> near_keys("lrr", ["model.optimizer.lr", "trainer"])
    ['model.optimizer.lr']
    >>> near_keys("lerning_rate", ["trainer.limit", "model.optimizer.lr"], 1)
    ['model.optimizer.lr']
    >>> near_keys("optimizer.class_path", ["model.optimizer", "model.optimizer.amsgrad"], 1)
    ['model.optimizer']
    """
    name = name.removesuffix(".class_path")  # a class setting is set by its own name
    shown = {key: key.replace(".init_args.", ".") for key in known}
    *before, last = name.replace(".init_args.", ".").split(".")
    words = OTHER_WORDS.get(next(iter(difflib.get_close_matches(last, OTHER_WORDS, 1, cutoff=0.8)), last), ())
    named = [key for word in words for key, short in shown.items() if short.rpartition(".")[2] == word]
    inside = [key for key in named if shown[key].startswith(".".join(before))]
    longer = [key for key, short in shown.items() if short.startswith(name)]
    words_of = name.count(".") + 1  # a user may write the last words of a key only
    ends = {key: (short, ".".join(short.split(".")[-words_of:])) for key, short in shown.items()}
    look = most_alike(".".join([*before, last]), ends, count)
    near = list(dict.fromkeys([*inside, *sorted(longer, key=len)[:1], *look]))[:count]
    return near or list(shown)[:count]


def unknown_key(key: str, known: Iterable[str], where: str = "") -> str:
    """Return the message about an unknown key, with the nearest keys; an abbreviation gets the full key."""
    known = list(dict.fromkeys(known))
    *before, last = key.split(".")
    ends = [end for word in OTHER_WORDS.get(last, ()) for end in ending_with(word, known)] if not before else []
    if len(ends) == 1 and not where:
        full = ends[0].replace(".init_args.", ".")
        return f"unknown key {key!r}; it is {full} here, or --{full.rpartition('.')[2]}"
    short = " (a flag cannot be shortened)" if not where and any(name.startswith(key) for name in known) else ""
    return f"{where}unknown key {key!r}{short}; {the_nearest(', '.join(near_keys(key, known)), 'key')}"


def ending_with(name: str, keys: Iterable[str], spellings: Sequence[str] = ()) -> list[str]:
    """Return the keys whose last words are a name, with or without ``init_args``.

    >>> ending_with("lr", ["model.optimizer.init_args.lr", "data.seed"])
    ['model.optimizer.init_args.lr']
    """
    endings = tuple(f".{each}" for each in (name, *spellings))
    return [key for key in keys if key.endswith(endings) or key.replace(".init_args.", ".").endswith(endings)]
