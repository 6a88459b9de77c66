"""Scripting of modules with a table of operators that torch leaves in disorder put right."""

from typing import Any

import torch
from torch import nn
from torch.jit import _builtins

_KEPT = ("aten", "prim")  # their functions live as long as torch does


def script(module: nn.Module) -> Any:
    """`torch.jit.script` of a module; what it raises passes through."""
    forget_freed_operators()
    return torch.jit.script(module)


def forget_freed_operators() -> None:
    """Take operators that are no more out of torch's table of what scripts may call.

    The table has the ids of Python objects. When an operator gets another overload, as those of torch.ao do when it is
    imported, torch replaces its object and leaves the id of the old one. A later object may get the same id, and is
    then taken for the operator: scripting of a sound network fails with "builtin cannot be used as a value"
    (benchmarks/scripting_deaths.py counts how often).
    """
    table = _builtins._get_builtin_table()
    for number, name in list(table.items()):
        namespace, _, operator = name.partition("::")
        if namespace in _KEPT:
            continue
        packet = getattr(getattr(torch.ops, namespace), operator, None)
        if packet is None or id(packet._op) != number:
            del table[number]
