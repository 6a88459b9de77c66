"""GFNet's training forms, isotropic and pyramid, rewritten for deployment."""

import copy
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pi_dynn.deploy.fold import BareNorm, CentredNorm, centred, fold_norm_into_linear
from pi_dynn.deploy.global_filter import deploy_filter
from pi_dynn.deploy.network import EarlyExitNetwork, assemble
from pi_dynn.deploy.quant_linear import DynamicQuantLinear, FloatLinear
from pi_dynn.models.gfnet import PREFIX_TOKENS, Block, GFNet, PoolingBlock
from pi_dynn.models.gfnet_pyramid import GFNetPyramid, ScaledBlock


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


class PatchStem(nn.Module):
    """Image to tokens as one matrix product over cut-out patches: (B, 3, H, W) -> (B, N, C).

    The convolution's bias is part of `linear`; the position embedding and the prefix tokens of a distilled
    network are constants. A centred stem writes tokens whose channels have the mean zero.
    """

    def __init__(
        self, projection: nn.Conv2d, positions: Tensor, prefix: Tensor, linear: "LinearForm", centre: bool = False
    ) -> None:
        super().__init__()
        self.patch = projection.kernel_size[0]
        weight, bias = projection.weight.flatten(1), projection.bias
        if centre:
            weight, bias = centred(weight, bias)
            positions, prefix = (x - x.mean(-1, keepdim=True) for x in (positions, prefix))
        self.linear = linear(weight, bias)
        self.register_buffer("positions", positions.detach().clone())  # (1, patches, C)
        self.register_buffer("prefix", prefix.detach().clone())  # (1, 0 or 2, C)

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, 3, H, W), whose sides are multiples of the patch, to tokens (B, N, C)."""
        B, _, H, W = x.shape
        p = self.patch
        x = x.view(B, 3, H // p, p, W // p, p).permute(0, 2, 4, 1, 3, 5).reshape(B, -1, 3 * p * p)
        x = self.linear(x) + self.positions  # (B, patches, C)
        if self.prefix.shape[1] > 0:
            x = torch.cat((self.prefix.expand(B, -1, -1), x), dim=1)
        return x


class DeployBlock(nn.Module):
    """x + fc2(gelu(fc1(norm(filter(norm(x)))))) with both norms bare: (B, N, C) -> (B, N, C).

    What the norms scale and shift is in the filter and in fc1; a pyramid's layer scale is in fc2. A centred block
    takes and leaves tokens whose channels have the mean zero, which makes its first norm cheaper.
    """

    def __init__(self, block: Block, linear: "LinearForm", centre: bool = False) -> None:
        super().__init__()
        self.norm1 = CentredNorm(block.norm1) if centre else BareNorm(block.norm1)
        self.filter = deploy_filter(block.filter, block.norm1, self.norm1.scale)
        self.norm2 = BareNorm(block.norm2)
        self.fc1 = linear(*fold_norm_into_linear(block.norm2, block.mlp.fc1))
        weight, bias = block.mlp.fc2.weight, block.mlp.fc2.bias
        if isinstance(block, ScaledBlock):
            weight, bias = weight * block.gamma[:, None], bias * block.gamma
        if centre:
            weight, bias = centred(weight, bias)
        self.fc2 = linear(weight, bias)

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (B, N, C) to tokens of the same shape."""
        hidden = self.fc1(self.norm2(self.filter(self.norm1(x))))
        # In place: nothing else refers to the outputs of the linear layers.
        return self.fc2(torch.ops.aten.gelu_(hidden)).add_(x)


LinearForm = Callable[[Tensor, Tensor], nn.Module]  # (weight, bias) -> a layer


def linear_form(precision: str, engine: str | None) -> LinearForm:
    """What makes a linear layer of the given precision."""
    if precision == "fp32" or engine is None:
        return FloatLinear
    return lambda weight, bias: DynamicQuantLinear(weight, bias, engine)


def deploy_gfnet(model: GFNet, exits: list[int], linear: LinearForm) -> EarlyExitNetwork:
    """The deploy form of an isotropic GFNet with exits after the blocks `exits`, a subset of the trained ones."""
    prefix, positions = fixed_tokens(model)
    # Only norms read the tokens, so all that is written to them may be centred.
    stem = PatchStem(model.patch_embed.proj, positions, prefix, linear, centre=True)

    def head(k: int | None) -> nn.Module:
        layers = head_layers(model, k)
        return TokenHead(model.norm, layers) if model.distilled else CentredMeanHead(model.norm, *layers)

    blocks = [[DeployBlock(block, linear, centre=True), *_pool(block)] for block in model.blocks]
    return assemble(model, exits, stem, blocks, head, head(None))


def fixed_tokens(model: GFNet) -> tuple[Tensor, Tensor]:
    """The tokens before the patches (1, 0 or 2, C), and what is added to the patches (1, patches, C)."""
    if not model.distilled:
        return model.pos_embed[:, :0], model.pos_embed
    tokens = torch.cat((model.cls_token, model.dist_token), dim=1)
    return model.pos_embed[:, :PREFIX_TOKENS] + tokens, model.pos_embed[:, PREFIX_TOKENS:]


def head_layers(model: GFNet, k: int | None) -> list[nn.Linear]:
    """The linear layers of exit number `k`, or of the last answer for None: one for each token that is read.

    A plain network reads the mean of all tokens as one.
    """
    if k is None:
        return [model.head, *([model.head_dist] if model.distilled else [])]
    return [model.intermediate_heads[k], *([model.intermediate_heads_dist[k]] if model.exit_reads_dist else [])]


def _pool(block: Block) -> list[nn.Module]:
    """What pools the tokens after `block`, if anything does."""
    return [copy.deepcopy(block.pool)] if isinstance(block, PoolingBlock) else []


def deploy_pyramid(model: GFNetPyramid, exits: list[int], linear: LinearForm) -> EarlyExitNetwork:
    """The deploy form of a pyramid GFNet; its few merging convolutions stay as they are, in fp32."""
    positions = model.pos_embed
    stem = PatchStem(model.patch_embed[0].proj, positions, positions[:, :0], linear)
    steps: list[list[nn.Module]] = []
    for stage, blocks in enumerate(model.blocks):
        for i, block in enumerate(blocks):
            merge = [copy.deepcopy(model.patch_embed[stage])] if stage > 0 and i == 0 else []
            steps.append([*merge, DeployBlock(block, linear)])

    def head(k: int) -> nn.Module:
        return MeanHead(model.intermediate_norms[k], model.intermediate_heads[k])

    return assemble(model, exits, stem, steps, head, MeanHead(model.norm, model.head))
