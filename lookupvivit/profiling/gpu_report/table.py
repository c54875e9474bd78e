"""The table of measurements that `lookupvivit.kernels.tuned` reads, as this report extends it: `tuned.json`."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from data_pipelines.io.atomic import write_text
from lookupvivit.kernels import tuned
from lookupvivit.profiling.gpu_report.state import Context, software


def table_file(context: Context) -> Path:
    """The table of this report."""
    return context.folder / "tuned.json"


def load_table(context: Context) -> tuned.Table:
    """The table of this report; at first, the committed one."""
    try:
        return json.loads(table_file(context).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return json.loads(tuned.FILE.read_text(encoding="utf-8"))


def extend_table(context: Context, part: Mapping[str, Any]) -> None:
    """Replace parts of this device's entry, such as ``tiles``."""
    table = copy.deepcopy(load_table(context))
    name = tuned.device_name(context.device)
    empty = {"tiles": {}, "fastest": {}, "fused_from": 2**23}
    table[name] = {**empty, **table.get(name, {}), **part, "software": software()}
    write_text(table_file(context), format_table(table))


def format_table(table: tuned.Table) -> str:
    """JSON with sorted keys and each list on one line, so that changes are readable."""
    lists: list[str] = []

    def mark(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: mark(value[key]) for key in sorted(value)}
        if isinstance(value, list):
            lists.append(json.dumps(value))
            return f"<{len(lists) - 1}>"
        return value

    text = json.dumps(mark(table), indent=1)
    for i, line in enumerate(lists):
        text = text.replace(f'"<{i}>"', line)
    return text + "\n"
