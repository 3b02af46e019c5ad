"""Log-likelihoods of rows with shared prefixes: each different prefix goes through the model once.

The choices of an item share its prompt, and often their first words; few-shot items share all their shots. The rows of
a batch are joined to trees of tokens. A node is one prefix, and its position is its depth. It sees its ancestors and
itself, and it predicts the next token of all rows with this prefix. Several trees are in one sequence of about
``WIDTH`` nodes, so there is nearly no padding. The last token of a row predicts nothing and is left out. (Trees of
continuations with one attention mask: SpecInfer, arXiv 2305.09781.)

A node has the same result as the last token of its prefix in a separate row, if only attention mixes positions, and
attention follows the mask and ``position_ids``. This is tested for each of ``FAMILIES``. Other models, and adapters
that put tokens before a row, score each row separately.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from smoa_lightning.adapters.method_names import method_name
from smoa_lightning.backbones.attention import FAMILIES, PLAIN, PRODUCTS
from smoa_lightning.data.encoding.items import IGNORED
from smoa_lightning.evaluation.scoring import log_probabilities, logits_at, row_log_likelihoods, target_logits

KERNELS = (PLAIN, PRODUCTS, "eager")  # they accept any mask of (rows, 1, length, length)
# Methods of peft with an effect at a token that depends on more than the hidden states at that token.
NOT_BY_TOKEN = ("ADAPTION_PROMPT", "CARTRIDGE", "POLY", "XLORA")

WIDTH = 128  # nodes in a sequence: more nodes mean more attention and less padding; a CPU gains nothing above
NODES = 2048  # nodes in a forward on a CPU: more do not make better use of it, and their activations leave its cache
LEAST_SHARE = 4  # a row joins a tree that already has a quarter of the row


def choice_log_likelihoods(model: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return the summed log-likelihood of each row's targets and their number, both (rows,).

    The rows share their prefixes if ``shares_prefixes`` allows it.

    Args:
        model: A causal language model in evaluation mode, with its adapter on or off.
        batch: ``input_ids``, ``attention_mask`` and ``labels``, each (rows, length), padded on the right.
    """
    if shares_prefixes(model, batch["input_ids"].shape[1]):
        likelihood, count = shared_log_likelihoods(model, batch)
        if bool(likelihood.isfinite().all()):
            return likelihood, count
        # NaN reaches other rows through masked attention, so each row is scored alone to find the wrong one
    return row_log_likelihoods(*target_logits(model, batch))


def shares_prefixes(model: Any, length: int) -> bool:
    """Return whether rows of up to ``length`` tokens may share their prefixes in this model.

    They may not in an architecture outside of ``FAMILIES``, with an attention kernel that makes its own mask, with rows
    longer than a sliding window, or with an adapter that is more than a function of each token's hidden states.
    """
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    config: Any = getattr(base, "config", None)
    if getattr(config, "model_type", None) not in FAMILIES or config._attn_implementation not in KERNELS:
        return False
    window = getattr(config, "sliding_window", None) or length  # qwen2_moe has 0 for none
    adapters: dict[str, Any] = getattr(model, "peft_config", {})
    return length <= window and all(map(_is_by_token, adapters.values()))


def _is_by_token(adapter: Any) -> bool:
    starts_at_a_token = getattr(adapter, "alora_invocation_tokens", None) is not None  # activated LoRA
    return not (adapter.is_prompt_learning or starts_at_a_token or method_name(adapter) in NOT_BY_TOKEN)


def shared_log_likelihoods(model: Any, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Return the result of ``row_log_likelihoods``, but compute each different prefix of the rows once.

    Args:
        model: A causal language model in evaluation mode that ``shares_prefixes``.
        batch: As for ``choice_log_likelihoods``.
    """
    lengths = batch["attention_mask"].sum(dim=1).tolist()
    rows = [ids[:length] for ids, length in zip(batch["input_ids"].tolist(), lengths, strict=True)]
    targets = [labels[:length] for labels, length in zip(batch["labels"].tolist(), lengths, strict=True)]
    device = batch["input_ids"].device
    dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
    likelihood = torch.zeros(len(rows), device=device)
    count = torch.zeros(len(rows), dtype=torch.long, device=device)
    for layout in lay_out(rows, targets, NODES if device.type == "cpu" else None):
        token = _target_log_probabilities(model, layout := layout.to(device), dtype)
        likelihood.index_add_(0, layout.row, token)
        count.index_add_(0, layout.row, torch.ones_like(layout.row))
    return likelihood, count


def _target_log_probabilities(model: Any, layout: Layout, dtype: torch.dtype) -> Tensor:
    """Return the log-probability of each target of a layout, (targets,), from one forward."""
    hidden = torch.zeros(layout.visible.shape, dtype=dtype, device=layout.visible.device)
    hidden.masked_fill_(~layout.visible, torch.finfo(dtype).min)
    inputs = {"input_ids": layout.input_ids, "position_ids": layout.position_ids, "use_cache": False}
    logits = logits_at(model, inputs | {"attention_mask": hidden[:, None]}, (layout.line, layout.column))
    return log_probabilities(logits, layout.place, layout.token)


@dataclass(frozen=True)
class Layout:
    """Rows as trees, with several trees in each of B sequences of T nodes.

    Args:
        input_ids: (B, T) token of each node, 0 for padding.
        position_ids: (B, T) depth of each node.
        visible: (B, T, T) whether the second node is the first one or an ancestor of it.
        line: (places,) sequence of each node that predicts a target.
        column: (places,) position of that node in its sequence.
        place: (targets,) index into ``line`` and ``column`` of the node that predicts each target.
        token: (targets,) token id of each target.
        row: (targets,) row of each target.
    """

    input_ids: Tensor
    position_ids: Tensor
    visible: Tensor
    line: Tensor
    column: Tensor
    place: Tensor
    token: Tensor
    row: Tensor

    def to(self, device: torch.device) -> Layout:
        """Return the layout on a device."""
        return Layout(**{name: tensor.to(device) for name, tensor in vars(self).items()})


@dataclass
class _Tree:
    """Tokens and depths of the nodes; for each row the number of shared nodes and the node of each of its tokens."""

    tokens: list[int] = field(default_factory=list)
    depths: list[int] = field(default_factory=list)
    paths: dict[int, tuple[int, list[int]]] = field(default_factory=dict)

    def add(self, row: int, tokens: Sequence[int], common: int, path: list[int]) -> list[int]:
        """Add a row below the first ``common`` nodes of a path, and return the row's path."""
        path = path[:common] + list(range(len(self.tokens), len(self.tokens) + len(tokens) - common))
        self.tokens += tokens[common:]
        self.depths += range(common, len(tokens))
        self.paths[row] = common, path
        return path


def _trees(rows: Sequence[list[int]]) -> list[_Tree]:
    """Join rows with shared prefixes. In lexicographic order, the row before shares the longest prefix."""
    trees: list[_Tree] = []
    before: Sequence[int] = ()
    path: list[int] = []
    limit = max(WIDTH, 2 * max(map(len, rows)))
    for row in sorted(range(len(rows)), key=rows.__getitem__):
        tokens = rows[row]
        pairs = enumerate(zip(tokens, before, strict=False))
        common = next((i for i, (one, other) in pairs if one != other), min(len(tokens), len(before)))
        fits = bool(trees) and len(trees[-1].tokens) + len(tokens) - common <= limit
        if not fits or common * LEAST_SHARE < len(tokens):
            trees.append(_Tree())
            common = 0
        path = trees[-1].add(row, tokens, common, path)
        before = tokens
    return trees


@dataclass
class _Forward:
    """The sequences of one forward, each with its trees and the nodes that it has room for."""

    width: int
    lines: list[list[_Tree]] = field(default_factory=list)
    room: list[int] = field(default_factory=list)

    def takes(self, tree: _Tree, nodes: int | None) -> bool:
        """Put a tree into the first sequence with room for it, or into a new one; return whether there was room."""
        size = len(tree.tokens)
        line = next((i for i, left in enumerate(self.room) if size <= left), len(self.lines))
        if line == len(self.lines):
            if self.lines and nodes is not None and (line + 1) * self.width > nodes:
                return False
            self.lines.append([])
            self.room.append(self.width)
        self.lines[line].append(tree)
        self.room[line] -= size
        return True


def _forwards(trees: Sequence[_Tree], nodes: int | None) -> list[_Forward]:
    """Share out trees among forwards, the largest trees first, so that those of one forward are about equally large."""
    forwards: list[_Forward] = []
    for tree in sorted(trees, key=lambda tree: -len(tree.tokens)):
        if not any(forward.takes(tree, nodes) for forward in forwards):
            forwards.append(_Forward(max(WIDTH, len(tree.tokens))))
            forwards[-1].takes(tree, nodes)
    return forwards


def lay_out(rows: Sequence[list[int]], labels: Sequence[Sequence[int]], nodes: int | None = None) -> list[Layout]:
    """Join rows to trees, and put the trees into sequences.

    Args:
        rows: Token ids of each row, at least one.
        labels: The same ids at the targets, -100 elsewhere; equally long.
        nodes: Most nodes of one layout, with padding, unless a single tree has more; ``None`` gives one layout.

    >>> (layout,) = lay_out([[5, 6, 7], [5, 6, 8, 9]], [[-100, -100, 7], [-100, -100, 8, 9]])
    >>> layout.input_ids.tolist(), layout.token.tolist(), layout.place.tolist()
    ([[5, 6, 8]], [7, 8, 9], [0, 0, 1])
    """
    return [_layout(forward.lines, labels) for forward in _forwards(_trees([row[:-1] for row in rows]), nodes)]


def _layout(lines: Sequence[list[_Tree]], labels: Sequence[Sequence[int]]) -> Layout:
    length = max(1, *(sum(len(tree.tokens) for tree in line) for line in lines))
    ids, positions = (np.zeros((len(lines), length), dtype=np.int64) for _ in range(2))
    visible = np.zeros((len(lines), length, length), dtype=bool)
    visible[:, range(length), range(length)] = True  # padding sees itself, since no row of the mask may be empty
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for number, line in enumerate(lines):
        start = 0
        for tree in line:
            stop = start + len(tree.tokens)
            ids[number, start:stop], positions[number, start:stop] = tree.tokens, tree.depths
            for row, (common, path) in tree.paths.items():
                nodes = np.array(path, dtype=np.int64) + start
                visible[number][np.ix_(nodes[common:], nodes)] = np.tri(len(nodes), dtype=bool)[common:]
                tokens = np.array(labels[row][1:], dtype=np.int64)
                chosen = tokens != IGNORED
                found.append((number * length + nodes[chosen], tokens[chosen], np.full(chosen.sum(), row)))
            start = stop
    predicting, token, row_of = (np.concatenate(part) for part in zip(*found, strict=True))
    distinct, place = np.unique(predicting, return_inverse=True)
    arrays = (ids, positions, visible, distinct // length, distinct % length, place, token, row_of)
    return Layout(*map(torch.from_numpy, arrays))
