"""The page of all settings, made from the JSON Schema that the package ships."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator

from smoa_lightning.configuration.settings import ABSENT, Group, Setting, class_group, class_paths, groups, schema

OWN = "smoa_lightning."
HEAD = """# Settings

Every setting of `fit`, `validate`, `test`, `predict` and `params`, as a key of a YAML file (`data: {batch_size: 16}`) or a
flag (`--data.batch_size 16`). `smoa-lightning fit --help` prints the same texts, with the values of your files. Studies take
the same keys, whole or their last words. This page is made from `configuration/settings.schema.json`.

"""
STRATEGIES = """## Strategies: `model.adapter`

The class path of a strategy and its settings, `model.adapter.init_args`. In a flag the last words are enough: `--model.adapter.r
16`. Each file of `experiments/adapters/` is one of them.
"""
OTHERS = """### Strategies of peft

`peft.LoraConfig` and the others of this list. `smoa-lightning fit --help --model.adapter CLASS` prints their settings:

{names}
"""
OPTIMIZERS = """## Optimizers: `model.optimizer`

The default is `torch.optim.AdamW`. Other optimizers of torch are named by their class path; one that cannot do a step
is refused before anything is scored. Settings of AdamW:
"""


def page() -> str:
    """Return the page as Markdown."""
    return HEAD + "\n".join([*_commands(), *_strategies(), *_optimizer()]) + "\n"


def _commands() -> Iterator[str]:
    for group in groups("fit"):
        title = f"`{group.name}`" if group.name else "General"
        yield f"## {title}\n\n{_sentence(group.title)}\n"
        yield from _table(group.settings)
        if not group.name:
            yield from _other_commands()


def _other_commands() -> Iterator[str]:
    """Yield the settings that only other commands than ``fit`` have."""
    known = {setting.key for setting in groups("fit")[0].settings}
    for command in schema()["x-commands"]:
        more = [setting for setting in groups(command)[0].settings if setting.key not in known]
        if more:
            yield f"In addition, `{command}` has:\n"
            yield from _table(more)


def _strategies() -> Iterator[str]:
    yield STRATEGIES
    paths = class_paths("model.adapter")
    for path in (path for path in paths if path.startswith(OWN)):
        group = class_group("model.adapter", path)
        assert group is not None  # the path is one of the schema
        yield f"### `{path.rpartition('.')[2]}`\n\n`{path}`\n\n{_sentence(_description(group, path))}\n"
        yield from _table(group.settings)
    names = ", ".join(f"`{path}`" for path in sorted(paths) if not path.startswith(OWN))
    yield OTHERS.format(names=names)


def _optimizer() -> Iterator[str]:
    yield OPTIMIZERS
    group = class_group("model.optimizer", "torch.optim.AdamW")
    assert group is not None  # the default is in the schema
    yield from _table(group.settings)


def _description(group: Group, path: str) -> str:
    return group.title.removeprefix(f"{path}: ")


def _table(settings: Iterable[Setting]) -> Iterator[str]:
    yield "| key | value | default | meaning |"
    yield "| :-- | :-- | :-- | :-- |"
    for setting in settings:
        default = "" if setting.default is ABSENT else _code(_value(setting.default))
        key = setting.key.replace(".init_args.", ".")
        anchor = f'<code id="{key}">{key}</code>'
        yield f"| {anchor} | {_code(setting.type.notation())} | {default} | {_cell(setting.help)} |"
    yield ""


def _value(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def _code(text: str) -> str:
    return f"<code>{_escaped(text)}</code>" if text else ""


def _cell(text: str) -> str:
    return _escaped(" ".join(text.split()))


def _escaped(text: str) -> str:
    """Return a text that Markdown and HTML show unchanged in a cell of a table."""
    for plain, entity in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "&#124;"), ("*", "&#42;"), ("_", "&#95;"),
                          ("`", "&#96;"), ("[", "&#91;"), ("\\", "&#92;")):  # fmt: skip
        text = text.replace(plain, entity)
    return text


def _sentence(text: str) -> str:
    plain = _escaped(" ".join(text.split()))
    return plain if plain.endswith(".") else f"{plain}."
