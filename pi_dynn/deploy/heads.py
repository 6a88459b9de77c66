"""Heads of the deploy form: norm, pooling and linear layer of one exit, in fp32.

They stay out of int8: a product with one row costs less than quantising its input.
"""

import torch
from torch import Tensor, nn

from pi_dynn.deploy.fold import BareNorm, CentredNorm, fold_norm_into_linear


class MeanHead(nn.Module):
    """Norm, mean over the tokens, linear layer: (B, N, C) -> logits (B, classes)."""

    def __init__(self, norm: nn.LayerNorm, linear: nn.Linear) -> None:
        super().__init__()
        self.norm = BareNorm(norm)
        weight, bias = fold_norm_into_linear(norm, linear)
        self.register_buffer("weight", weight.T.contiguous())  # (C, classes)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, self.norm(x).mean(1), self.weight)


class CentredMeanHead(nn.Module):
    """A MeanHead for tokens whose channels have the mean zero: (B, N, C) -> logits (B, classes).

    The mean of the normed tokens is the tokens times a row of weights, so none of them is written again.
    """

    def __init__(self, norm: nn.LayerNorm, linear: nn.Linear) -> None:
        super().__init__()
        self.norm = CentredNorm(norm)
        weight, bias = fold_norm_into_linear(norm, linear)
        self.register_buffer("weight", weight.T.contiguous() * self.norm.scale)  # (C, classes)
        self.register_buffer("bias", bias)

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.bmm(self.norm.inverse(x).transpose(1, 2), x).squeeze(1) / x.shape[1]  # (B, C)
        return torch.addmm(self.bias, pooled, self.weight)


class TokenHead(nn.Module):
    """Norm and linear layer on the first T tokens, averaged over them: (B, N, C) -> logits (B, classes).

    T = 1 reads the class token; T = 2 also the distillation token, with a linear layer of its own, as one
    product with the stacked weights. The few tokens are normed whole, so they need not be centred.
    """

    def __init__(self, norm: nn.LayerNorm, linears: list[nn.Linear]) -> None:
        super().__init__()
        self.norm = BareNorm(norm)
        self.tokens = len(linears)
        folded = [fold_norm_into_linear(norm, linear) for linear in linears]
        self.register_buffer("weight", torch.cat([w for w, _ in folded], dim=1).T.contiguous() / self.tokens)
        self.register_buffer("bias", torch.stack([b for _, b in folded]).mean(0))

    def forward(self, x: Tensor) -> Tensor:
        return torch.addmm(self.bias, self.norm(x[:, : self.tokens]).flatten(1), self.weight)
