"""The architecture: imports point down through the layers, without cycles, and data_pipelines stands alone.

All imports count: those at the top of a module, those inside functions, and module names in strings, which are imported
by name. Imports for type checkers alone (``if TYPE_CHECKING``) do not count.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import get_args

import pytest
from support.paths import ROOT

from lookupvivit import experiments
from lookupvivit.config import RunConfig
from lookupvivit.config.section import Section

LAYERS = (
    (
        "data_pipelines",
        "lookupvivit.config",
        "lookupvivit.errors",
        "lookupvivit.experiments",
        "lookupvivit.kernels",
        "lookupvivit.sizes",
    ),
    ("lookupvivit.layers",),
    ("lookupvivit.models",),
    ("lookupvivit.weights", "lookupvivit.profiling", "lookupvivit.visualization"),
    # lookupvivit itself: the lazy public API
    ("lookupvivit.evaluation", "lookupvivit.features", "lookupvivit.timm", "lookupvivit.transformers", "lookupvivit"),
    ("lookupvivit.training",),
    (
        "lookupvivit.accuracy_cost",
        "lookupvivit.camera_motion",
        "lookupvivit.captioning",
        "lookupvivit.evidence",
        "lookupvivit.probing",
        "lookupvivit.robustness",
        "lookupvivit.studies",
    ),
    ("lookupvivit.cli", "lookupvivit.__main__"),
    ("tools",),
)
EXCEPTION = "lookupvivit.experiments"  # imports the experiment of a dataset or checkpoint by name


@dataclass(frozen=True)
class Import:
    """A module that imports another one."""

    importer: str
    imported: str

    def __str__(self) -> str:
        return f"{self.importer} imports {self.imported}"


@cache
def sources() -> dict[str, str]:
    """Source text of every module, by its dotted name."""
    modules = {}
    for package in ("data_pipelines", "lookupvivit", "tools"):
        for file in sorted((ROOT / package).rglob("*.py")):
            modules[module_name(file.relative_to(ROOT))] = file.read_text(encoding="utf-8")
    return modules


def module_name(path: Path) -> str:
    parts = path.with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def is_package(module: str) -> bool:
    return (ROOT / module.replace(".", "/") / "__init__.py").is_file()


def layer_of(module: str) -> int:
    """The layer of the longest prefix of a module's name that is in `LAYERS`."""
    prefixes = {name: number for number, names in enumerate(LAYERS) for name in names}
    parts = module.split(".")
    for length in range(len(parts), 0, -1):
        prefix = ".".join(parts[:length])
        if prefix == "lookupvivit" and length < len(parts):
            break  # not in any package of the table
        if prefix in prefixes:
            return prefixes[prefix]
    raise AssertionError(f"{module}: not in a layer; add it to LAYERS")


# ----------------------------------------------------------------------------------------------------------------------
# Finding imports


def nodes(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes except the bodies of ``if TYPE_CHECKING``."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        if isinstance(child, ast.If) and is_type_checking(child.test):
            for statement in child.orelse:
                yield from nodes(statement)
        else:
            yield from nodes(child)


def is_type_checking(test: ast.expr) -> bool:
    return ast.unparse(test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING")


def imports_of(module: str, source: str, modules: frozenset[str]) -> Iterator[Import]:
    """The imports of ``modules`` in the source of one module."""
    for node in nodes(ast.parse(source)):
        names: list[str] = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parent = parent_module(module, node)
            submodules = [f"{parent}.{alias.name}" for alias in node.names]
            names = [name if name in modules else parent for name in submodules]
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            names = [node.value]  # of importlib.import_module, or of a table of modules
        for name in dict.fromkeys(names):
            if name in modules and name != module and not (name == "lookupvivit" and isinstance(node, ast.Constant)):
                yield Import(module, name)


def parent_module(module: str, node: ast.ImportFrom) -> str:
    """The absolute name of the module that ``node`` imports from."""
    if not node.level:
        return node.module or ""
    levels_up = node.level - 1 if is_package(module) else node.level
    base = module.split(".")[: len(module.split(".")) - levels_up]
    return ".".join([*base, *([node.module] if node.module else [])])


@cache
def all_imports() -> tuple[Import, ...]:
    modules = frozenset(sources())
    return tuple(found for module, source in sources().items() for found in imports_of(module, source, modules))


@pytest.mark.parametrize(
    ("source", "imported"),
    [
        ("import lookupvivit.cli.arguments", ["lookupvivit.cli.arguments"]),
        ("from lookupvivit.cli import arguments", ["lookupvivit.cli.arguments"]),
        ("from lookupvivit.cli.arguments import run", ["lookupvivit.cli.arguments"]),
        ("from lookupvivit.kernels import KernelsError", ["lookupvivit.kernels"]),
        ("def f():\n    from lookupvivit import cli", ["lookupvivit.cli"]),
        ("importlib.import_module('lookupvivit.cli')", ["lookupvivit.cli"]),
        ("__import__('lookupvivit.cli')", ["lookupvivit.cli"]),
        ("BACKENDS = {'cpu': 'lookupvivit.kernels.chunked'}", ["lookupvivit.kernels.chunked"]),
        ("import lookupvivit", ["lookupvivit"]),
        ("from .registry import create_model", ["lookupvivit.models.registry"]),
        ("from ..cli import arguments", ["lookupvivit.cli.arguments"]),
        ("if TYPE_CHECKING:\n    import lookupvivit.cli", []),
        ("if TYPE_CHECKING:\n    pass\nelse:\n    import lookupvivit.cli", ["lookupvivit.cli"]),
        ("import torch\n'''Uses lookupvivit.cli.'''\nname = 'lookupvivit'", []),
    ],
)
def test_every_kind_of_import_is_found(source, imported):
    found = imports_of("lookupvivit.models.vit", source, frozenset(sources()))
    assert [entry.imported for entry in found] == imported


# ----------------------------------------------------------------------------------------------------------------------
# The rules


def test_imports_point_down():
    assert not upward_imports()


@cache
def upward_imports() -> set[str]:
    return {
        str(entry)
        for entry in all_imports()
        if entry.importer != EXCEPTION and layer_of(entry.imported) > layer_of(entry.importer)
    }


def test_there_are_no_import_cycles():
    assert not cycles()


@cache
def cycles() -> set[str]:
    graph: dict[str, set[str]] = {module: set() for module in sources()}
    for entry in all_imports():
        if entry.importer != EXCEPTION:
            graph[entry.importer].add(entry.imported)
    return {" <-> ".join(sorted(component)) for component in strongly_connected(graph) if len(component) > 1}


def strongly_connected(graph: dict[str, set[str]]) -> Iterator[set[str]]:
    """Sets of modules that import one another, directly or through others."""
    reachable = {module: reachable_from(module, graph) for module in graph}
    seen: set[str] = set()
    for module in graph:
        if module not in seen:
            component = {module} | {other for other in reachable[module] if module in reachable[other]}
            seen |= component
            yield component


def reachable_from(module: str, graph: dict[str, set[str]]) -> set[str]:
    reached: set[str] = set()
    pending = list(graph[module])
    while pending:
        current = pending.pop()
        if current not in reached:
            reached.add(current)
            pending += graph[current]
    return reached


def test_cycles_are_found():
    graph = {"a": {"b"}, "b": {"c"}, "c": {"a", "d"}, "d": set()}
    assert [component for component in strongly_connected(graph) if len(component) > 1] == [{"a", "b", "c"}]


def test_data_pipelines_does_not_import_lookupvivit():
    assert not {
        str(entry)
        for entry in all_imports()
        if entry.importer.startswith("data_pipelines") and entry.imported.startswith("lookupvivit")
    }


def test_data_pipelines_does_not_name_configuration_keys():
    """It states the fact and names its own parameter; the caller, which knows the key, adds it."""
    assert not named_keys()


@cache
def named_keys() -> set[str]:
    return {
        f"{module} names {key}"
        for module, source in sources().items()
        if module.startswith("data_pipelines")
        for key in keys_in_strings(source)
    }


@pytest.mark.parametrize(
    ("source", "keys"),
    [
        ("raise DataError('set data.root')", ["data.root"]),
        ("raise DataError(f'{file}: not found; data.skip_list names it')", ["data.skip_list"]),
        ("raise DataError(f'data.{name}: missing')", ["data.{"]),
        ("'''See model.multi_resolution.t.'''", ["model.multi_resolution.t"]),
        ("print('augment.py', 'model.json', 'metadata.root', data.root)", []),
    ],
)
def test_keys_in_strings_are_found(source, keys):
    assert keys_in_strings(source) == keys


def keys_in_strings(source: str) -> list[str]:
    """Configuration keys in string literals; "section.{" where an f-string completes the key."""
    sections = {key.split(".")[0] for key in configuration_keys()}
    longest_first = sorted(configuration_keys(), key=len, reverse=True)
    complete = rf"(?:{'|'.join(map(re.escape, longest_first))})(?!\w)"
    completed_by_expression = rf"(?:{'|'.join(sections)})\.{{"
    pattern = re.compile(rf"(?<![\w.])(?:{complete}|{completed_by_expression})")
    return [key for text in string_literals(ast.parse(source)) for key in pattern.findall(text)]


@cache
def configuration_keys() -> frozenset[str]:
    """All dotted keys, those of experiments included."""
    schemas = [RunConfig, *(experiments.experiment(name).Config for name in experiments.PACKAGES)]
    return frozenset(key for schema in schemas for key in dotted_keys(schema, ""))


def dotted_keys(schema: type[Section], prefix: str) -> Iterator[str]:
    for name, field in schema.model_fields.items():
        if prefix:
            yield f"{prefix}{name}"
        for annotation in (field.annotation, *get_args(field.annotation)):  # also of X | None
            if isinstance(annotation, type) and issubclass(annotation, Section):
                yield from dotted_keys(annotation, f"{prefix}{name}.")


def string_literals(node: ast.AST) -> Iterator[str]:
    """The text of every string; f-strings as they are written."""
    if isinstance(node, ast.JoinedStr):
        yield ast.unparse(node)
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    else:
        for child in ast.iter_child_nodes(node):
            yield from string_literals(child)


def test_configuration_keys_include_every_section():
    keys = configuration_keys()
    assert {
        "data.root",
        "optim.batch_size",
        "model.multi_resolution",
        "runtime.precision",
        "caption.vocabulary",
    } <= keys
