"""A CLIP whose modules have OpenAI's names, to make TorchScript archives like OpenAI's of."""

import torch
from torch import nn


class QuickGELU(nn.Module):
    def forward(self, x):
        return x * torch.sigmoid(1.702 * x)


class Attention(nn.Module):
    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.randn(3 * width, width) * width**-0.5)
        self.in_proj_bias = nn.Parameter(0.1 * torch.randn(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x, causal: bool):  # [B, L, D]
        batch, length, width = x.shape
        joined = nn.functional.linear(x, self.in_proj_weight, self.in_proj_bias)
        q, k, v = (
            joined.view(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        )
        attended = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=causal)
        return self.out_proj(attended.transpose(1, 2).reshape(batch, length, width))


class Mlp(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.gelu = QuickGELU()
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x):
        return self.c_proj(self.gelu(self.c_fc(x)))


class ResidualAttentionBlock(nn.Module):
    def __init__(self, width: int, heads: int, causal: bool):
        super().__init__()
        self.causal = causal
        self.attn = Attention(width, heads)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = Mlp(width)
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x):
        x = x + self.attn(self.ln_1(x), self.causal)
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, width: int, layers: int, causal: bool):
        super().__init__()
        self.resblocks = nn.Sequential(
            *[ResidualAttentionBlock(width, width // 64, causal) for _ in range(layers)]
        )

    def forward(self, x):
        return self.resblocks(x)


class VisionTransformer(nn.Module):
    def __init__(self, width: int, layers: int, patch: int, resolution: int, embedding: int):
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
        self.class_embedding = nn.Parameter(width**-0.5 * torch.randn(width))
        self.positional_embedding = nn.Parameter(
            width**-0.5 * torch.randn((resolution // patch) ** 2 + 1, width)
        )
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, layers, False)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(width**-0.5 * torch.randn(width, embedding))

    def forward(self, images):
        patches = self.conv1(images).flatten(2).transpose(1, 2)
        rows = (
            torch.cat([self.class_embedding.expand(patches.shape[0], 1, -1), patches], 1)
            + self.positional_embedding
        )
        return self.ln_post(self.transformer(self.ln_pre(rows))[:, 0]) @ self.proj


class Clip(nn.Module):
    def __init__(
        self,
        vision_width: int,
        vision_layers: int,
        patch: int,
        resolution: int,
        text_width: int,
        text_layers: int,
        embedding: int,
    ):
        super().__init__()
        self.visual = VisionTransformer(vision_width, vision_layers, patch, resolution, embedding)
        self.transformer = Transformer(text_width, text_layers, True)
        self.token_embedding = nn.Embedding(49408, text_width)
        self.positional_embedding = nn.Parameter(0.1 * torch.randn(77, text_width))
        self.ln_final = nn.LayerNorm(text_width)
        self.text_projection = nn.Parameter(text_width**-0.5 * torch.randn(text_width, embedding))
        self.logit_scale = nn.Parameter(torch.tensor(4.6))
        # Buffers of OpenAI's archives that are no weights.
        self.register_buffer("input_resolution", torch.tensor(resolution))
        self.register_buffer("context_length", torch.tensor(77))
        self.register_buffer("vocab_size", torch.tensor(49408))

    @torch.jit.export
    def encode_text(self, tokens):
        x = self.transformer(self.token_embedding(tokens) + self.positional_embedding)
        x = self.ln_final(x)
        return x[torch.arange(x.shape[0]), tokens.argmax(dim=-1)] @ self.text_projection

    def forward(self, images, tokens):
        return self.visual(images), self.encode_text(tokens)
