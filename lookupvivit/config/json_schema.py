"""Look up a key in a JSON schema, and say in words which values it accepts: the "expected" part of error messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

JsonSchema = dict[str, Any]
NestedKeys = tuple[int | str, ...]


def find_node(root: JsonSchema, location: NestedKeys) -> tuple[NestedKeys, JsonSchema]:
    """Follow nested keys through sections and mappings, but not into lists.

    Returns:
        The keys that were followed, and the schema of the value there.
    """
    node = _resolve(root, root)
    for depth, key in enumerate(location):
        if key in node.get("properties", {}):
            node = node["properties"][key]
        elif isinstance(node.get("additionalProperties"), Mapping):
            node = node["additionalProperties"]
        else:
            return location[:depth], node
        node = _resolve(root, node)
    return location, node


def dotted_keys(root: JsonSchema, node: JsonSchema, prefix: str = "") -> Iterator[str]:
    """Yield all sections and keys below a node, such as ``optim`` and ``optim.lr``."""
    for name, child in _resolve(root, node).get("properties", {}).items():
        yield f"{prefix}{name}"
        yield from dotted_keys(root, child, f"{prefix}{name}.")


def describe(root: JsonSchema, node: JsonSchema) -> str:
    """Say in words which values a schema accepts, such as "a number above 0, or null"."""
    node = _resolve(root, node)
    if "anyOf" in node:
        return ", or ".join(describe(root, option) for option in node["anyOf"])
    if "enum" in node:
        return f"one of {', '.join(map(str, node['enum']))}"
    match node.get("type"):
        case "integer":
            return f"an integer{_bounds(node)}"
        case "number":
            return f"a finite number{_bounds(node)}"
        case "string" if "pattern" in node:
            return str(node["title"])
        case "string":
            return "text, in quotes where it looks like another type"
        case "boolean":
            return "true or false"
        case "array":
            return _describe_list(root, node)
        case "object" if "properties" in node:
            return f"a section with the keys {', '.join(node['properties'])}"
        case "object":
            return "a mapping of keys to values"
        case kind:
            return str(kind or "a value")


def _bounds(node: JsonSchema) -> str:
    low, high = node.get("minimum"), node.get("maximum")
    if low is not None and high is not None:
        return f" between {low:g} and {high:g}"
    words = {
        "minimum": "of at least",
        "exclusiveMinimum": "above",
        "maximum": "of at most",
        "exclusiveMaximum": "below",
    }
    limits = [f"{text} {node[name]:g}" for name, text in words.items() if name in node]
    return f" {' and '.join(limits)}" if limits else ""


def _describe_list(root: JsonSchema, node: JsonSchema) -> str:
    items = node.get("prefixItems")
    if items is None:
        length = f"a list of {node['minItems']} values" if node.get("maxItems") else "a list of values"
        return f"{length}, each {describe(root, node['items'])}"
    described = [describe(root, item) for item in items]
    names = [item.get("title") for item in items]
    if all(names):
        return f"[{', '.join(names)}]: " + ", ".join(described)
    return f"a list of {len(items)} values, each {described[0]}"


def _resolve(root: JsonSchema, node: JsonSchema) -> JsonSchema:
    """Replace a reference by its definition, and an optional section by the section."""
    options = [option for option in node.get("anyOf", []) if "$ref" in option]
    if options:
        node = options[0]
    if "$ref" in node:
        return root["$defs"][node["$ref"].rpartition("/")[2]]
    return node
