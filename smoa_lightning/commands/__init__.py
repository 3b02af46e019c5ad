"""One file for each command; heavy libraries are imported only when a command runs."""

from __future__ import annotations

COMMANDS = {
    "fit": "train a strategy on a task and score it",
    "validate": "score a checkpoint on the selection rows",
    "test": "score a checkpoint on the report rows",
    "predict": "write the score of every item of the report rows",
    "generate": "reply to prompts, to a file of prompts or in a chat with the best adapter of a run",
    "export": "write a run as a merged model, an adapter or a LoRA for other programs",
    "params": "show what a configuration adapts, its memory and its size on disk, without data",
    "ablate": "run a study: a grid of cells with seeds, and searches",
    "report": "turn a study into tables, figures and one page, or a run into one page",
    "compare": "compare finished runs: paired tests, settings, and the rows that only one gets right",
    "configs": "list, show or copy the experiments and studies of the package",
    "methods": "list all strategies: equation, parameters, rank bound, source",
    "rank": "measure the rank of a run's update, as a table and a figure",
}
# Names of these commands in other programs.
OTHER_NAMES = {
    "merge": "export",
    "convert": "export",
    "train": "fit",
    "strategies": "methods",
    "eval": "test",
    "evaluate": "test",
}
