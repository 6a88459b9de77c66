import pytest
import torch
from torch import Tensor, nn
from torch.jit import _builtins

import pi_dynn.deploy.static_quant  # noqa: F401 - its import of torch.ao gives operators more overloads
from pi_dynn.deploy.scripting import forget_freed_operators, script


class Shifted(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.shift = (1.5, 2.5)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.shift[0]


def test_an_object_in_the_place_of_a_freed_operator_is_not_taken_for_it():
    table, module = _builtins._get_builtin_table(), Shifted()
    table[id(module.shift)] = "quantized_decomposed::quantize_per_tensor"  # as torch leaves it
    with pytest.raises(RuntimeError):
        torch.jit.script(module)
    assert script(module)(torch.zeros(1)).item() == 1.5


def test_operators_that_live_stay_known():
    table = _builtins._get_builtin_table()
    operator = torch.ops.quantized_decomposed.quantize_per_tensor
    forget_freed_operators()
    named = {name: [number for number in table if table[number] == name] for name in set(table.values())}
    assert named["quantized_decomposed::quantize_per_tensor"] == [id(operator._op)]
    assert {"aten::relu", "aten::wait", "prim::awaitable_wait"} <= named.keys()
