"""Write the JSON Schema of all settings: ``python -m tools.settings_schema`` (or ``make schema``).

The schema is made from the real parser by jsonargparse's own generator. Help, early errors, the checks of study files
and completion in editors read it. ``tests/configuration/test_schema.py`` compares the shipped file with a new one.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import inspect
import json
import re
import sys
from typing import Any, NoReturn

import optuna
from jsonargparse._completions_jsonschema import ParserJsonschema, parser_context, restore_suppressed_required

from smoa_lightning.ablation.study.search_space import OWN_ARGUMENTS, PRUNERS, SAMPLERS
from smoa_lightning.commands import COMMANDS
from smoa_lightning.common.atomic_files import replacing
from smoa_lightning.configuration.ranges import PRECISIONS, RANGES
from smoa_lightning.configuration.settings import SCHEMA_FILE, SUBCOMMANDS
from smoa_lightning.data.tasks import TASKS
from smoa_lightning.training.cli import FineTuneCLI
from tools.setting_classes import class_names, optimizers, prompts, shorter_paths, strategies

PACKAGES = ("lightning", "optuna", "peft", "torch")
# In the order of the help: most used first.
GROUPS = (
    *("run", "data", "model", "trainer", "checkpoint", "cost_monitor", "rank_monitor", "sample_predictions"),
    *("pictures", "forgetting"),
)
MEANINGS = {
    "base": "In a file: a file to read before this one; the path is relative to this file.",
    "config": "File of settings; later files and flags replace earlier ones.",
    "seed_everything": "Seed of adapter, data and dropout; true draws a random seed.",
    "ckpt_path": "Checkpoint of a run: fit starts a new run from its weights; validate, test and predict score it.",
    "model.adapter": "The strategy: any peft.PeftConfig by class path, such as smoa_lightning.adapters.SMoAConfig or "
    "peft.LoraConfig; null is full fine-tuning.",
    "model.prompt": "A prompt method that is trained together with model.adapter, such as peft.PromptTuningConfig; "
    "null trains the adapter alone.",
    "trainer.callbacks": "Further callbacks by class path, in addition to the callbacks below.",
}
ANY_CLASS = {"anyOf": [{"type": "string"}, {"type": "object"}]}

Node = dict[str, Any]


class _ParserReady(Exception):
    """Carries the complete parser out of the command line."""


class _ParserOnly(FineTuneCLI):
    def parse_arguments(self, parser: Any, args: Any) -> NoReturn:
        raise _ParserReady(parser)


def parser_of(command: str) -> Any:
    """Return the real parser of ``fit``, ``validate``, ``test``, ``predict`` or ``params``."""
    try:
        if command in SUBCOMMANDS:
            _ParserOnly([command])
        _ParserOnly([], run=False)
    except _ParserReady as ready:
        parser = ready.args[0]
    return parser._subcommands_action._name_parser_map[command] if command in SUBCOMMANDS else parser


class _Generator(ParserJsonschema):
    """jsonargparse's generator; only classes that studies or help need are described."""

    def subclass_def(self, class_type: Any, action: Any) -> Node:
        # a learning rate may be a tensor, but no text means one
        return {"type": "object"} if class_type.__name__ == "Tensor" else dict(ANY_CLASS)

    def settings_of(self, class_type: type, parser: Any, key: str) -> Node:
        """Return the settings of one class under the key that takes it."""
        action = next(action for action in parser._actions if action.dest == key)
        with restore_suppressed_required(), parser_context(parent_parser=parser):
            return dict(self.class_parser_schema(class_type, action))


def options() -> dict[str, list[str]]:
    """Return class path -> the options of each sampler and pruner of Optuna that a study may name."""
    result = {}
    for module, table in ((optuna.samplers, SAMPLERS), (optuna.pruners, PRUNERS)):
        for name in table.values():
            parameters = inspect.signature(getattr(module, name)).parameters
            result[f"{module.__name__}.{name}"] = [option for option in parameters if option not in OWN_ARGUMENTS]
    return result


def make_schema() -> Node:
    """Return the schema of the installed versions."""
    parser, generator = parser_of("fit"), _Generator()  # type: ignore[no-untyped-call]
    whole = generator.generate(parser)
    definitions: Node = {}
    classes: dict[str, dict[str, str]] = {}
    for key, members in (
        ("model.adapter", strategies()),
        ("model.prompt", prompts()),
        ("model.optimizer", optimizers()),
    ):
        classes[key] = {}
        by_class: dict[type, str] = {}
        for class_path, member in members.items():
            public = by_class.setdefault(member, class_path)
            names = {class_path, f"{member.__module__}.{member.__qualname__}", member.__name__, *shorter_paths(member)}
            classes[key] |= {name: public for name in sorted(names) if name not in classes[key]}
            if public == class_path:
                definitions[public] = _class_node(generator.settings_of(member, parser, key), member)
    definitions |= generator.reachable_defs({"all": [whole["properties"], definitions]})
    general = {name: node for name, node in whole["properties"].items() if name not in GROUPS}
    schema: Node = {
        "$schema": whole["$schema"],
        "title": "Settings of smoa_lightning",
        "x-versions": {name: importlib.metadata.version(name).partition("+")[0] for name in PACKAGES},
        "x-commands": {command: _general(command) for command in (*SUBCOMMANDS, "params")},
        "x-classes": classes,
        "x-class-names": class_names(parser)
        | {key: [name for name in classes[key] if "." in name] for key in ("model.adapter", "model.prompt")},
        "x-options": options(),
        "type": "object",
        "additionalProperties": False,
        "patternProperties": {r"\.": {}, r"\+$": {}},
        "properties": general | {name: whole["properties"][name] for name in GROUPS},
        "$defs": definitions,
    }
    for key in classes:
        group, name = key.split(".")
        node = schema["properties"][group]["properties"][name]
        schema["properties"][group]["properties"][name] = _any_of_classes(node, classes[key])
    schema["properties"]["data"]["properties"]["task"]["x-names"] = [*TASKS, "mixture"]
    del schema["$defs"]["DistillationConfig"]["required"]  # a file may leave the teacher to a flag; fit needs it
    _tidy(schema, "")
    _add_ranges(schema)
    return schema


def _add_ranges(schema: Node) -> None:
    """Write the valid range of each number, and leave out number formats that are refused."""
    for key, valid in RANGES.items():
        node, name = schema, key.rpartition(".")[2]
        if key.startswith("model.optimizer.init_args."):
            nodes = [n["properties"] for path, n in schema["$defs"].items() if path.startswith("torch.optim.")]
            holders = [properties for properties in nodes if name in properties]
        else:
            for part in key.split(".")[:-1]:
                node = node["properties"][part]
                for kind in node.get("anyOf", ()):  # a dataclass
                    node = schema["$defs"][kind["$ref"].rpartition("/")[2]] if "$ref" in kind else node
            holders = [node["properties"]]
        for properties in holders:
            own = properties[name]
            for part in own.get("anyOf", [own]):
                kinds = part.get("type", [])
                if {"integer", "number"} & set([kinds] if isinstance(kinds, str) else kinds):
                    part |= valid.schema()
    precision = schema["properties"]["trainer"]["properties"]["precision"]
    for part in precision["anyOf"]:
        if "enum" in part:
            part["enum"] = [value for value in part["enum"] if value in PRECISIONS]


def _class_node(node: Node, member: type) -> Node:
    """Return the settings of a class with their meanings, from the parser or from the fields of a dataclass."""
    node["description"] = _first_sentence(inspect.getdoc(member) or "")
    fields = dataclasses.fields(member) if dataclasses.is_dataclass(member) else ()
    for field in fields:
        own = node["properties"].get(field.name)
        if own is not None and field.metadata.get("help"):
            meaning = field.metadata["help"]  # peft 0.21 writes a tuple in one place
            own["description"] = meaning if isinstance(meaning, str) else "".join(meaning)
    for name in ("$schema", "params"):  # the parameters of an optimizer are not a setting
        node["properties"].pop(name, None)
    node["required"] = [name for name in node.get("required", ()) if name != "params"]
    return node


def _any_of_classes(node: Node, names: dict[str, str]) -> Node:
    """Return the node of a setting that takes a class, with the settings of the class under ``init_args``."""
    rules = [
        {
            "if": {"properties": {"class_path": {"const": public}}, "required": ["class_path"]},
            "then": {"properties": {"init_args": {"$ref": f"#/$defs/{public}"}}},
        }
        for public in dict.fromkeys(names.values())
    ]
    whole = {
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "class_path": {"type": "string", "examples": list(dict.fromkeys(names.values()))},
            "init_args": {"type": "object"},
            "dict_kwargs": {"type": "object"},
        },
        "allOf": rules,
    }
    kinds = [{"type": "string"}, whole]
    if any(kind == {"type": "null"} for kind in node["anyOf"]):
        kinds.insert(0, {"type": "null"})
    return {**node, "anyOf": kinds}


def _general(command: str) -> Node:
    """Return the title of a command and its settings outside of groups."""
    node = _Generator().generate(parser_of(command))  # type: ignore[no-untyped-call]
    names = [name for name in node["properties"] if name not in (*GROUPS, "$schema")]
    properties = {"config": {"x-notation": "FILE", "description": MEANINGS["config"]}} | {
        name: node["properties"][name] for name in names
    }
    return {"description": COMMANDS[command].capitalize(), "properties": properties}


def _tidy(node: Any, key: str) -> None:
    """Clean the descriptions, and remove the useless key ``$schema`` of every object."""
    if isinstance(node, list):
        for item in node:
            _tidy(item, key)
    if not isinstance(node, dict):
        return
    if isinstance(node.get("properties"), dict):
        if key:
            node["properties"].pop("$schema", None)
        for name, inner in node["properties"].items():
            inner_key = f"{key}.{name}" if key and not key.startswith(("x-", "$")) else name
            if meaning := MEANINGS.get(inner_key):
                inner["description"] = meaning
    if isinstance(node.get("description"), str):
        node["description"] = _plain(node["description"])
    for name, inner in node.items():
        if name == "properties":
            for own, value in inner.items():
                _tidy(value, f"{key}.{own}" if key else own)
        elif name not in ("description", "default"):
            _tidy(inner, key or name)


def _plain(text: str) -> str:
    """Return a meaning as one line, without reStructuredText marks and without the default, which help shows itself."""
    text = " ".join(text.split())
    text = re.sub(r"\s*(?:Default(?:s to)?:? ``[^`]*``\.?|\(default: [^()]*\))", "", text)
    text = re.sub(r":\w+:`~?([^`]*)`", lambda match: match[1].split(" <")[0], text)
    return text.replace("``", "").replace("`", "")


def _first_sentence(docstring: str) -> str:
    """Return the first sentence of a docstring, without its full stop."""
    paragraph = " ".join(docstring.strip().split("\n\n")[0].split())
    return re.split(r"(?<=[a-z)`])\.(?:\s|$)", _plain(paragraph))[0].rstrip(".")


def text_of(schema: Node) -> str:
    """Return the schema as it is shipped."""
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def main(args: list[str]) -> int:
    """Write the schema into the package; with ``--check`` only say whether the shipped one is fresh."""
    text = text_of(make_schema())
    if "--check" in args:
        return int(text != SCHEMA_FILE.read_text(encoding="utf-8"))
    with replacing(SCHEMA_FILE) as temporary:
        temporary.write_text(text, encoding="utf-8")
    print(f"written: {SCHEMA_FILE}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
