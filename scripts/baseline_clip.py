"""CLIP in plain PyTorch with LoRA or R-Adapter in it, for scripts/baseline_pytorch.py."""

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import nn

CONTEXT, VOCABULARY = 77, 49408


@dataclasses.dataclass
class Architecture:
    """Shapes of a CLIP; heads are 64 wide."""

    vision_width: int
    vision_layers: int
    patch: int
    resolution: int
    text_width: int
    text_layers: int
    embedding: int


ARCHITECTURES = {
    "ViT-B/32": Architecture(768, 12, 32, 224, 512, 12, 512),
    "ViT-B/16": Architecture(768, 12, 16, 224, 512, 12, 512),
    "ViT-L/14": Architecture(1024, 24, 14, 224, 768, 12, 768),
}


class LowRank(nn.Linear):
    """A frozen projection [D, D] and its update: y = W x + b + gamma B A dropout(x), gamma = alpha / sqrt(R)."""

    def __init__(self, width, rank, dropout, alpha=1.0):
        super().__init__(width, width)
        self.requires_grad_(False)
        bound = 1.0 / math.sqrt(width)
        self.w_lora_A = nn.Parameter(torch.empty(rank, width).uniform_(-bound, bound))
        self.w_lora_B = nn.Parameter(torch.zeros(width, rank))
        self.dropout = nn.Dropout(dropout)
        self.scaling = alpha / math.sqrt(rank)

    def forward(self, x):
        update = self.w_lora_B @ self.w_lora_A  # [D, D]
        return super().forward(x) + self.scaling * F.linear(self.dropout(x), update)


class ResidualAdapter(nn.Module):
    """h(z) = z + s delta W z; delta is 0 or 1 / (1 - p) for a position of all sequences, 1 at evaluation."""

    def __init__(self, width, dropping):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width, width))
        self.scale = nn.Parameter(torch.full((1,), 0.1))
        self.dropping = dropping

    def keep(self, length):
        """1 for the positions that keep their update, [L, 1, 1]."""
        return torch.empty(length, 1, 1, device=self.scale.device).bernoulli_(1.0 - self.dropping)

    def forward(self, z):
        """z: [L, B, D]"""
        factor = self.scale  # s delta
        if self.training and self.dropping > 0.0:
            factor = factor * self.keep(len(z)) / (1.0 - self.dropping)
        return torch.addcmul(z, factor.to(z.dtype), F.linear(z, self.weight))


class Attention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.heads = width // 64
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def add_low_rank(self, rank, dropout):
        """Splits the input projection into q, k and v with updates."""
        width = self.out_proj.in_features
        for name, weight, bias in zip(
            ("q_proj", "k_proj", "v_proj"), self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3), strict=True
        ):
            projection = LowRank(width, rank, dropout)
            projection.weight.data.copy_(weight)
            projection.bias.data.copy_(bias)
            self.add_module(name, projection.to(weight.device))
        del self.in_proj_weight, self.in_proj_bias

    def project(self, x):
        """x: [L, B, D]; returns q, k and v alike."""
        if hasattr(self, "q_proj"):
            return self.q_proj(x), self.k_proj(x), self.v_proj(x)
        return F.linear(x, self.in_proj_weight, self.in_proj_bias).chunk(3, dim=-1)

    def forward(self, x, mask):
        length, batch, width = x.shape
        q, k, v = (
            part.reshape(length, batch * self.heads, width // self.heads)
            .transpose(0, 1)
            .view(batch, self.heads, length, width // self.heads)
            for part in self.project(x)
        )
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
        return self.out_proj(attended.permute(2, 0, 1, 3).reshape(length, batch, width))


class QuickGelu(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = Attention(width)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential()
        self.mlp.add_module("c_fc", nn.Linear(width, 4 * width))
        self.mlp.add_module("gelu", QuickGelu())
        self.mlp.add_module("c_proj", nn.Linear(4 * width, width))
        self.adapter_attn, self.adapter_mlp = nn.Identity(), nn.Identity()

    def add_residual_adapters(self, dropping):
        weight = self.attn.out_proj.weight
        self.adapter_attn = ResidualAdapter(len(weight), dropping).to(weight.device)
        self.adapter_mlp = ResidualAdapter(len(weight), dropping).to(weight.device)

    def forward(self, x, mask):
        x = x + self.adapter_attn(self.attn(self.ln_1(x), mask))
        return x + self.adapter_mlp(self.mlp(self.ln_2(x)))


class Transformer(nn.Module):
    def __init__(self, width, layers, mask=None):
        """mask: added to the scores, [L, L]."""
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width) for _ in range(layers))
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, x):
        """[B, L, D] to the same; the blocks see [L, B, D]."""
        x = x.transpose(0, 1)
        for block in self.resblocks:
            x = block(x, self.mask)
        return x.transpose(0, 1)


class Vision(nn.Module):
    def __init__(self, a):
        super().__init__()
        width = a.vision_width
        self.conv1 = nn.Conv2d(3, width, kernel_size=a.patch, stride=a.patch, bias=False)
        self.class_embedding = nn.Parameter(torch.empty(width))
        self.positional_embedding = nn.Parameter(torch.empty((a.resolution // a.patch) ** 2 + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, a.vision_layers)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.empty(width, a.embedding))

    def forward(self, images):
        """[B, 3, R, R] to [B, E]."""
        patches = self.conv1(images).flatten(2).transpose(1, 2)  # [B, grid^2, D]
        class_token = self.class_embedding.expand(len(images), 1, -1)
        x = torch.cat([class_token, patches], dim=1) + self.positional_embedding
        x = self.transformer(self.ln_pre(x))
        return self.ln_post(x[:, 0]) @ self.proj


class Clip(nn.Module):
    """Parameters have the names of OpenAI's checkpoints."""

    def __init__(self, a):
        super().__init__()
        self.visual = Vision(a)
        causal = torch.full((CONTEXT, CONTEXT), -math.inf).triu(1)
        self.transformer = Transformer(a.text_width, a.text_layers, causal)
        self.token_embedding = nn.Embedding(VOCABULARY, a.text_width)
        self.positional_embedding = nn.Parameter(torch.empty(CONTEXT, a.text_width))
        self.ln_final = nn.LayerNorm(a.text_width)
        self.text_projection = nn.Parameter(torch.empty(a.text_width, a.embedding))
        self.requires_grad_(False)
        self.initialise()

    @torch.no_grad()
    def initialise(self):
        """Deviations of OpenAI's initialisation."""
        for tower in (self.visual.transformer, self.transformer):
            for block in tower.resblocks:
                width = block.attn.out_proj.in_features
                output_deviation = (2 * width * len(tower.resblocks)) ** -0.5
                block.attn.in_proj_weight.normal_(std=width**-0.5)
                block.attn.out_proj.weight.normal_(std=output_deviation)
                block.mlp.c_fc.weight.normal_(std=(2 * width) ** -0.5)
                block.mlp.c_proj.weight.normal_(std=output_deviation)
                for linear in (block.attn.out_proj, block.mlp.c_fc, block.mlp.c_proj):
                    linear.bias.zero_()
        visual, deviation = self.visual, len(self.visual.class_embedding) ** -0.5
        visual.conv1.weight.normal_(std=visual.conv1.weight[0].numel() ** -0.5)
        for parameter in (visual.class_embedding, visual.positional_embedding, visual.proj):
            parameter.normal_(std=deviation)
        self.token_embedding.weight.normal_(std=0.02)
        self.positional_embedding.normal_(std=0.01)
        self.text_projection.normal_(std=len(self.text_projection) ** -0.5)

    def blocks(self):
        return [*self.visual.transformer.resblocks, *self.transformer.resblocks]

    def trained_parameters(self):
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def add_lora(self, rank, dropout):
        """Adds float32 A's and B's to q, k and v of every block; returns them."""
        for block in self.blocks():
            block.attn.add_low_rank(rank, dropout)
        return self.trained_parameters()

    def add_r_adapter(self, dropping):
        """Adds float32 W's and s's after attention and MLP of every block; returns them."""
        for block in self.blocks():
            block.add_residual_adapters(dropping)
        return self.trained_parameters()

    def encode_image(self, images):
        return self.visual(images)

    def encode_text(self, ids):
        """[C, 77] to [C, E]: of the end token, whose id is the largest."""
        x = self.token_embedding(ids) + self.positional_embedding
        x = self.ln_final(self.transformer(x))
        return x[torch.arange(len(ids), device=ids.device), ids.argmax(dim=-1)] @ self.text_projection
