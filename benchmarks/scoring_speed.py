"""Items per second when scoring the choices of tasks, compared with EleutherAI's lm-evaluation-harness.

Each program runs in a separate process, which has loaded the backbone. In every round each program scores all items of
a task once; ratios are within a round. The time is from texts to log-likelihoods: it contains tokenisation, but not
loading, reading rows and metrics. The harness runs its ``loglikelihood`` on the texts of this project, which are the
same as its own texts (agree_with_lm_eval.py). Both use the best of several batch sizes, measured first on the same
rows. ``--plain`` adds this project without shared prefixes, ``rows one by one``. CPU seconds are those of all threads
of a program, user and system: on a machine with other load they vary less than the time.

    pip install lm-eval
    python benchmarks/scoring_speed.py --backbone FOLDER --data FOLDER --rows 300 --threads 2
    python benchmarks/scoring_speed.py --backbone FOLDER --data FOLDER --dtype bfloat16 --peer-python PATH/bin/python

``--data`` has a folder for each task, with ``validation.jsonl`` in the task's Hub schema; a file may have fewer rows
than ``--rows``. The exit status is 1 if log-likelihoods in float32 differ by more than 1e-3 and by more than 1e-5 of
their size.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update(HF_HUB_OFFLINE="1", HF_DATASETS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

import torch
from turns import add_backbone_arguments, rounds, spread

TASKS = ("piqa", "arc_easy", "hellaswag", "boolq", "social_i_qa")
TOLERANCE = 1e-3
MAX_LENGTH = 2048  # no row may be longer, since the two programs truncate at different places
Requests = list[list[list[str]]]  # items, choices, prompt and response
Score = Callable[[Requests, int], list[list[float]]]


# ------------------------------------------------------------------------------------- the processes that score


def ours(options: argparse.Namespace, share: bool) -> Score:
    """Return this project's function that scores texts, in batches of items."""
    from smoa_lightning.backbones.backbone import BackboneConfig, load_model, locate
    from smoa_lightning.backbones.tokenizer import load_tokenizer
    from smoa_lightning.data.batches.loaders import scoring_loader
    from smoa_lightning.data.encoding.encode_examples import Encoding, encode_choices
    from smoa_lightning.data.tasks import ChoiceExample
    from smoa_lightning.evaluation.prefix_trees import choice_log_likelihoods
    from smoa_lightning.evaluation.scoring import row_log_likelihoods, target_logits

    config = BackboneConfig("local", path=options.backbone, dtype=options.dtype)
    location = locate(config)
    model, tokenizer = load_model(config, location).eval().to(options.device), load_tokenizer(location)
    pad: Any = tokenizer.pad_token_id

    def score(requests: Requests, batch_size: int) -> list[list[float]]:
        examples = [
            ChoiceExample(tuple(prompt for prompt, _ in pairs), tuple(response for _, response in pairs), 0)
            for pairs in requests
        ]
        items, _ = encode_choices(examples, range(len(examples)), str, tokenizer, Encoding(MAX_LENGTH))
        found: dict[int, list[float]] = {}
        for batch in scoring_loader(items, batch_size, options.max_tokens, pad):
            moved = {name: tensor.to(options.device) for name, tensor in batch.items()}
            with torch.inference_mode():
                if share:
                    likelihood, _ = choice_log_likelihoods(model, moved)
                else:
                    likelihood, _ = row_log_likelihoods(*target_logits(model, moved))
            parts = likelihood.split(batch["num_choices"].tolist())
            found |= {row: part.tolist() for row, part in zip(batch["row"].tolist(), parts, strict=True)}
        return [found[row] for row in range(len(examples))]

    return score


def theirs(options: argparse.Namespace) -> Score:
    """Return the harness's function that scores texts, in batches of choices."""
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    model = HFLM(pretrained=options.backbone, dtype=options.dtype, device=options.device, max_length=MAX_LENGTH)

    def score(requests: Requests, batch_size: int) -> list[list[float]]:
        model.batch_size_per_gpu = batch_size
        pairs = [tuple(pair) for item in requests for pair in item]
        instances = [Instance("loglikelihood", {}, pair, number) for number, pair in enumerate(pairs)]  # type: ignore[arg-type]
        answers = iter(model.loglikelihood(instances, disable_tqdm=True))
        return [[float(next(answers)[0]) for _ in item] for item in requests]

    return score


def serve(options: argparse.Namespace) -> None:
    """Read requests from standard input, one for each line; answer with a line of seconds and log-likelihoods."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # prints of libraries go to standard error
    if options.threads:
        torch.set_num_threads(options.threads)
    score = theirs(options) if options.serve == "theirs" else ours(options, share=options.serve == "ours")
    print(json.dumps({"threads": torch.get_num_threads()}), file=answers, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        start, cpu = time.perf_counter(), time.process_time()
        values = score(asked["requests"], asked["batch_size"])
        if options.device == "cuda":
            torch.cuda.synchronize()
        answer = {"seconds": time.perf_counter() - start, "cpu": time.process_time() - cpu, "log_likelihood": values}
        print(json.dumps(answer), file=answers, flush=True)


class Program:
    """A process that scores texts."""

    def __init__(self, python: str, which: str, log: Any) -> None:
        command = [python, __file__, *sys.argv[1:], "--serve", which]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True)
        self.threads = self._answer()["threads"]

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{' '.join(map(str, self.process.args))} failed: see --log")  # type: ignore[arg-type]
        return json.loads(line)  # type: ignore[no-any-return]

    def score(self, requests: Requests, batch_size: int) -> dict[str, Any]:
        """Score all items; return seconds and log-likelihoods."""
        assert self.process.stdin is not None
        print(json.dumps({"requests": requests, "batch_size": batch_size}), file=self.process.stdin, flush=True)
        return self._answer()

    def stop(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


# ---------------------------------------------------------------------------------------------- the comparison


def texts(task: str, options: argparse.Namespace, folder: Path) -> Requests:
    """Return prompt and response of every choice of the first rows of a task."""
    from smoa_lightning.data.datamodule import TaskDataModule

    rows = folder / f"{task}.jsonl"
    with (Path(options.data) / task / "validation.jsonl").open(encoding="utf-8") as stream:
        rows.write_text("".join(itertools.islice(stream, options.rows)), encoding="utf-8")
    data = TaskDataModule(task, "local", path={"validation": str(rows)}, report_split="validation")
    examples = [data.example("report", row) for row in data.indices("report")]
    return [[list(pair) for pair in example.pairs] for example in examples]


def best_size(program: Program, requests: Requests, options: argparse.Namespace, name: str) -> int:
    """Return the batch size with the least CPU seconds, on a GPU the least time; a single one is not tried."""
    sizes: list[int] = options.peer_batch_sizes if name == "theirs" else options.batch_sizes
    if len(sizes) == 1:
        return sizes[0]
    clock = "seconds" if options.device == "cuda" else "cpu"
    return min(sizes, key=lambda size: program.score(requests, size)[clock])


def measure(task: str, requests: Requests, programs: dict[str, Program], options: argparse.Namespace) -> bool:
    """Print the table row of a task; return whether the scores agree."""
    for program in programs.values():
        program.score(requests[:4], 4)  # warms up
    sizes = {name: best_size(programs[name], requests, options, name) for name in ("ours", "theirs")}
    sizes["plain"] = sizes["ours"]
    times: dict[str, list[float]] = {name: [] for name in programs}
    cpu: dict[str, list[float]] = {name: [] for name in programs}
    scores: dict[str, list[list[float]]] = {}
    for _ in rounds(options.rounds, options.seconds):
        for name, program in programs.items():
            answer = program.score(requests, sizes[name])
            times[name].append(answer["seconds"])
            cpu[name].append(answer["cpu"])
            scores[name] = answer["log_likelihood"]
    pairs = [(a, b) for x, y in zip(scores["ours"], scores["theirs"], strict=True) for a, b in zip(x, y, strict=True)]
    absolute = max(abs(a - b) for a, b in pairs)
    relative = max(abs(a - b) / max(abs(b), 1e-9) for a, b in pairs)
    best = [[max(range(len(item)), key=item.__getitem__) for item in scores[name]] for name in ("ours", "theirs")]
    flips = sum(a != b for a, b in zip(*best, strict=True))
    speed = [f"{len(requests) / statistics.median(times[name]):.1f}" for name in programs]
    cells = [task, str(len(requests)), str(len(pairs)), f"{sizes['ours']} / {sizes['theirs']}"]
    cells += [spread(times["theirs"], times["ours"]), spread(cpu["theirs"], cpu["ours"])]
    cells += [
        spread(cpu["theirs"], cpu["plain"]) if options.plain else "",
        *speed,
        f"{absolute:.1e} / {relative:.1e}",
        str(flips),
    ]
    print("| " + " | ".join(cells) + " |", flush=True)
    return all(abs(a - b) <= max(TOLERANCE, 1e-5 * abs(b)) for a, b in pairs)


def main() -> int:
    """Start the programs, measure all tasks and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_backbone_arguments(parser, attention=False)
    parser.add_argument("--data", required=True, help="folder with TASK/validation.jsonl")
    parser.add_argument("--tasks", nargs="+", default=list(TASKS))
    parser.add_argument("--rows", type=int, default=300, help="number of rows from the start of each file")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, help="for a task: no further round begins that would end later")
    parser.add_argument("--threads", type=int, help="threads of both programs (default: those of torch)")
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[16, 64], help="items in a batch of this project")
    parser.add_argument("--plain", action="store_true", help="also score rows one by one")
    parser.add_argument("--max-tokens", type=int, help="most tokens in a batch of this project, data.eval_max_tokens")
    parser.add_argument("--peer-python", default=sys.executable, help="interpreter with lm-eval")
    parser.add_argument(
        "--peer-batch-sizes", type=int, nargs="+", default=[1, 4, 16, 64], help="choices in a batch of the harness"
    )
    parser.add_argument("--log", help="file for the output of the programs (default: none)")
    parser.add_argument("--serve", choices=("ours", "plain", "theirs"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options)
        return 0
    with open(options.log or os.devnull, "w") as log, tempfile.TemporaryDirectory() as folder:
        programs = {"ours": Program(sys.executable, "ours", log)}
        if options.plain:
            programs["plain"] = Program(sys.executable, "plain", log)
        programs["theirs"] = Program(options.peer_python, "theirs", log)
        threads = {program.threads for program in programs.values()}
        print(f"{options.dtype}, threads {threads}, {options.rounds} rounds")
        header = ["task", "items", "choices", "batch: items / the harness's choices", "items/s over the harness's"]
        header += ["items per CPU second", "of rows one by one", *(f"items/s: {name}" for name in programs)]
        header += ["largest difference, absolute / relative", "predictions that differ"]
        print("| " + " | ".join(header) + " |\n|" + "---|" * len(header), flush=True)
        agreed = [measure(task, texts(task, options, Path(folder)), programs, options) for task in options.tasks]
        for program in programs.values():
            program.stop()
    return 0 if all(agreed) or options.dtype != "float32" else 1


if __name__ == "__main__":
    sys.exit(main())
