"""``generate RUN``: replies of a run's best adapter to prompts, to the rows of a file, or in a chat."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import math
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smoa_lightning.commands.arguments import (
    ArgumentParser,
    add_allow_classes,
    add_allow_other_backbone,
    add_backbone_path,
    check_adapter_folder,
)
from smoa_lightning.common.allowed_classes import allowing
from smoa_lightning.common.checksums import sha256
from smoa_lightning.common.errors import UserError
from smoa_lightning.common.fast_imports import import_command
from smoa_lightning.common.other_backbone import allowing_other_backbone
from smoa_lightning.common.paths import local_path
from smoa_lightning.records.adapter_places import BEST, adapter_in
from smoa_lightning.records.record import ADAPTER_FACTS

if TYPE_CHECKING:
    from smoa_lightning.training.generation.prompts import Prompt
    from smoa_lightning.training.generation.reply_file import ReplyFile
    from smoa_lightning.training.generation.speaker import Decoding, Speaker

BASE = "base"
EMPTY = "(empty reply: the model ended at once)"
LEAST = {"max_new_tokens": 1, "num_beams": 1, "batch_size": 1, "seed": 0}


def parser() -> ArgumentParser:
    """Return the parser of the command."""
    result = ArgumentParser(
        prog="python -m smoa_lightning generate",
        description="Write replies with the best adapter of a run: to prompts, to the rows of a file, or in a chat.",
    )
    result.add_argument(
        "run", type=local_path, metavar="RUN", help="a run folder (its best adapter is used) or an adapter folder"
    )
    _add_prompts(result)
    _add_decoding(result)
    result.add_argument(
        "--against", default=None, metavar="base|RUN", help="reply with the base model or another run as well"
    )
    add_backbone_path(result)
    add_allow_classes(result)
    add_allow_other_backbone(result)
    return result


def _add_prompts(result: ArgumentParser) -> None:
    asked = result.add_mutually_exclusive_group(required=True)
    asked.add_argument("--prompt", action="append", help="text to continue; may be given several times")
    asked.add_argument(
        "--file", type=local_path, metavar="PROMPTS", help='rows with "prompt" or "messages", such as prompts.jsonl'
    )
    asked.add_argument("--chat", action="store_true", help="chat in the terminal, or with the lines of a pipe")
    result.add_argument(
        "--output", type=local_path, metavar="REPLIES", help="the rows of --file with replies; a stopped one continues"
    )
    result.add_argument(
        "--turns", action="store_true", help="the prompts are turns of one conversation, each with its reply"
    )
    result.add_argument(
        "--system", default=None, metavar="TEXT", help='system text, "" for none (default: that of the training rows)'
    )
    result.add_argument("--batch_size", type=int, default=8, help="rows of --file in a batch (default: 8)")


def _add_decoding(result: ArgumentParser) -> None:
    result.add_argument(
        "--max_new_tokens", type=int, default=64, help="largest number of tokens in a reply (default: 64)"
    )
    result.add_argument("--num_beams", type=int, default=1, help="width of the beam search; 1 is greedy (default)")
    result.add_argument(
        "--temperature", type=float, default=None, help="draw tokens at this temperature; 0 draws none (default)"
    )
    result.add_argument(
        "--top_p", type=float, default=None, help="draw from the likeliest tokens with this joint probability"
    )
    result.add_argument("--seed", type=int, default=0, help="seed of the draws (default: 0)")


def main(args: list[str]) -> None:
    """Print replies, write them to a file, or chat.

    Raises:
        UserError: Arguments do not fit, a prompt is wrong, or the folder holds no adapter.
    """
    options = parser().parse_args(args)
    _check(options)
    with allowing(options.allow_classes), allowing_other_backbone(options.allow_other_backbone):
        for run in (options.run, options.against):
            if run not in (None, BASE):
                check_adapter_folder(run)
        prompts, output = _prompts(options)
        if output is not None and output.is_complete():
            print(f"{output.path} is complete: it has the replies to all {len(prompts)} prompts")
            return
        if output is not None:
            output.check_lock()
        module = import_command("smoa_lightning.training.generate")
        from smoa_lightning.common.quiet import quiet_libraries

        quiet_libraries()
        speakers = module.open_speakers(options.run, options.against, options.backbone, options.system)
        _reply(options, speakers, prompts, output)


def _check(options: argparse.Namespace) -> None:
    """Refuse values out of their range, and flags that do not go together.

    Raises:
        UserError: Names the flag.
    """
    for name, least in LEAST.items():
        if getattr(options, name) < least:
            raise UserError(f"generate: --{name} is {getattr(options, name)}; the smallest value is {least}")
    temperature, top_p = options.temperature, options.top_p
    if temperature is not None and not (0 <= temperature < math.inf):
        raise UserError(f"generate: --temperature is {temperature}; the smallest value is 0, which draws nothing")
    if top_p is not None and not 0 < top_p <= 1:
        raise UserError(f"generate: --top_p is {top_p}; it must be above 0 and at most 1, such as 0.9")
    if top_p is not None and temperature is None:
        raise UserError("generate: --top_p has no effect without draws: set --temperature too, such as 1")
    if temperature and options.num_beams > 1:
        raise UserError(f"generate: --temperature draws tokens, so --num_beams must be 1, not {options.num_beams}")
    if (options.file is None) != (options.output is None):
        given, missing = ("file", "output") if options.file is not None else ("output", "file")
        raise UserError(f"generate: --{given} needs --{missing}, a file such as replies.jsonl")
    prompts = options.prompt or ()
    if empty := [number for number, text in enumerate(prompts, start=1) if not text.strip()]:
        which = "" if len(prompts) == 1 else f" (prompt {empty[0]} of {len(prompts)})"
        raise UserError(f"generate: --prompt must not be empty{which}: write a text to continue")
    if options.turns and not options.prompt:
        raise UserError("generate: --turns is for --prompt; rows of --file have their turns in 'messages'")
    if options.against not in (None, BASE):
        options.against = local_path(options.against)
        _refuse_the_same(options.run, options.against)
    if options.output is not None and options.output.resolve() == options.file.resolve():
        raise UserError("generate: --output is the file of the prompts; name a new file")


def _refuse_the_same(run: Path, against: Path) -> None:
    """Refuse the same adapter twice: both columns would have the same replies.

    Raises:
        UserError: Both paths lead to one adapter folder.
    """
    if not (run.is_dir() and against.is_dir()):
        return  # refused by name later
    places = [folder / BEST if (folder / BEST).is_dir() else folder for folder in (run, against)]
    if places[0].samefile(places[1]):
        raise UserError(f"generate: --against {against} is the same adapter as RUN; name another run, or base")


def _prompts(options: argparse.Namespace) -> tuple[list[Prompt], ReplyFile | None]:
    """Return the prompts, and the file of replies; both are checked before heavy libraries are imported."""
    if options.chat:
        return [], None
    from smoa_lightning.training.generation.prompts import OTHER_REPLY, REPLY, Prompt, read_prompts

    if options.file is None:
        return [Prompt(f"prompt {number}", text) for number, text in enumerate(options.prompt, start=1)], None
    from smoa_lightning.training.generation.reply_file import ReplyFile

    prompts = read_prompts(options.file, options.against is not None)
    keys = (REPLY, OTHER_REPLY) if options.against is not None else (REPLY,)
    output = ReplyFile(options.output, _settings(options, prompts), prompts, keys)
    return prompts, output


def _settings(options: argparse.Namespace, prompts: Iterable[Prompt]) -> dict[str, Any]:
    """Return what decides the replies of a file."""
    rows = hashlib.sha256("\n".join(json.dumps(prompt.row) for prompt in prompts).encode()).hexdigest()
    names = ["system", "max_new_tokens", "num_beams", "top_p", "seed", "allow_other_backbone"]
    names += ["backbone"] if options.allow_other_backbone else []
    against = options.against
    if isinstance(against, Path):
        against = sha256(adapter_in(against) / ADAPTER_FACTS)
    adapters = {"the adapter": sha256(adapter_in(options.run) / ADAPTER_FACTS), "--against": against}
    flags = {"--temperature": options.temperature or 0.0} | {f"--{name}": getattr(options, name) for name in names}
    return {"the file of prompts": rows, **adapters, **flags}


def _reply(
    options: argparse.Namespace, speakers: list[Speaker], prompts: list[Prompt], output: ReplyFile | None
) -> None:
    from smoa_lightning.evaluation.sampling import Sampling
    from smoa_lightning.training.generation.speaker import Decoding

    sampling = Sampling(options.temperature, options.top_p or 1.0, options.seed) if options.temperature else None
    decoding = Decoding(options.max_new_tokens, options.num_beams, sampling)
    if output is not None:
        from smoa_lightning.training.generation.of_file import write_replies

        earlier, added = write_replies(speakers, prompts, decoding, output, options.batch_size)
        kept = f", {earlier} of them by an earlier command" if earlier else ""
        print(f"written to {output.path}: {earlier + added} replies{kept}")
    elif options.chat or options.turns:
        _chat(speakers, decoding, options.prompt)
    else:
        _print(speakers, prompts, decoding)


def _print(speakers: list[Speaker], prompts: list[Prompt], decoding: Decoding) -> None:
    """Print replies; with several prompts, print each prompt before its reply, and two models side by side."""
    from smoa_lightning.training.generate import replies_of
    from smoa_lightning.training.generation.side_by_side import side_by_side

    for prompt, *texts in zip(prompts, *replies_of(speakers, prompts, decoding), strict=True):
        if len(texts) > 1:
            texts = [text or EMPTY for text in texts]
        elif not texts[0]:
            print(EMPTY, file=sys.stderr)
        text = texts[0] if len(texts) == 1 else side_by_side([speaker.label for speaker in speakers], texts)
        print(text if len(prompts) == 1 else f"> {prompt.text}\n{text}\n")


def _chat(speakers: list[Speaker], decoding: Decoding, turns: list[str] | None) -> None:
    """Chat with a user, or reply to turns that are all known."""
    from smoa_lightning.training.generation.chat import Chat, typed_lines
    from smoa_lightning.training.generation.speaker import load_speakers

    load_speakers(speakers)
    chat = Chat(speakers, decoding)
    if not all(speaker.encoder.holds_conversations for speaker in speakers):
        chat.note("the run was trained on single prompts without a chat template: each message is a prompt of its own")
    if turns is not None:
        for turn in turns:
            print(f"> {turn}", flush=True)
            chat.say(turn)
        return
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # a byte that is not UTF-8 does not end a chat
    if sys.stdin.isatty():
        chat.note("/help lists the commands; Ctrl-C stops a reply, Ctrl-D ends the chat")
        chat.run(typed_lines())
    else:
        chat.run(sys.stdin)
