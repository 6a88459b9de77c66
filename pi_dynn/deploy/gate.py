"""The learned gate in a few fused operations; other gates as they are."""

import copy

import torch
from torch import Tensor, nn

from pi_dynn.exits.gate import LearnableUncertaintyGate


class FusedGate(nn.Module):
    """A LearnableUncertaintyGate as one softmax, one entropy and two small products: (B, classes) -> (B,).

    With w on [p1, H(p), p1 - p2, H(q)]: p1*(w0 + w2) - p2*w2 is a product with the two largest entries, and
    w1*H(p) + w3*H(q) one with all entropy terms at once. Returns the value before the sigmoid.
    """

    def __init__(self, gate: LearnableUncertaintyGate, num_classes: int) -> None:
        super().__init__()
        w = gate.linear.weight.detach().float()[0]
        self.register_buffer("powers", torch.tensor([[1.0], [2.0]]))  # p and its sharpened copy q
        self.register_buffer("entropy_weight", w[[1, 3]].repeat_interleave(num_classes).contiguous())  # (2*classes,)
        self.register_buffer("top_weight", torch.stack((w[0] + w[2], -w[2])))  # (2,)
        self.register_buffer("bias", gate.linear.bias.detach().float().clone())  # (1,)

    def forward(self, logits: Tensor) -> Tensor:
        both = torch.softmax(logits.unsqueeze(1) * self.powers, dim=-1)  # (B, 2, classes)
        top = torch.topk(both[:, 0], 2, dim=-1)[0]  # (B, 2)
        value = torch.addmv(self.bias, torch.special.entr(both).flatten(1), self.entropy_weight)
        return torch.addmv(value, top, self.top_weight)


def deploy_gate(gate: nn.Module, num_classes: int) -> nn.Module:
    """What judges an exit on the device: logits (B, classes) -> (B,), before the sigmoid."""
    return FusedGate(gate, num_classes) if isinstance(gate, LearnableUncertaintyGate) else copy.deepcopy(gate)
