#!/usr/bin/env python3
"""The yardstick: CLIP-LoRA in plain eager PyTorch, with random weights of CLIP's true scale.

One training iteration as the method's authors run it: all prompts with their 77 tokens and the batch's images go through
the towers, float32 weights under autocast, sequence first as in OpenAI's CLIP with its additive causal mask; each
adapted projection forms its update B A and draws a dropout mask of its own; then cross-entropy, backward, GradScaler,
AdamW and the cosine schedule. It is not slowed down by anything else: the images lie on the device, augmented and
normalised, and the prompts as ids; attention is PyTorch's fused one; frozen weights need no gradients; and nothing waits
for the device but GradScaler itself.

Needs PyTorch alone. Prints one line, or with --json one JSON object.

    scripts/baseline_pytorch.py --classes 100
    scripts/baseline_pytorch.py --backbone ViT-L/14 --encode
    scripts/baseline_pytorch.py --device cpu --threads 2 --classes 10 --iterations 5 --json
"""

import argparse
import dataclasses
import json
import math
import platform
import resource
import statistics
import time

import torch
import torch.nn.functional as F
from torch import nn

CONTEXT, VOCABULARY = 77, 49408
START, END = VOCABULARY - 2, VOCABULARY - 1
LOGIT_SCALE = 100.0
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


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


class Attention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.heads = width // 64
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)

    def adapt(self, rank, dropout):
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

    def forward(self, x, mask):
        x = x + self.attn(self.ln_1(x), mask)
        return x + self.mlp(self.ln_2(x))


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

    def adapt(self, rank, dropout):
        """Adds float32 A's and B's to q, k and v of every block; returns them."""
        for module in list(self.modules()):
            if isinstance(module, Attention):
                module.adapt(rank, dropout)
        return [parameter for parameter in self.parameters() if parameter.requires_grad]

    def encode_image(self, images):
        return self.visual(images)

    def encode_text(self, ids):
        """[C, 77] to [C, E]: of the end token, whose id is the largest."""
        x = self.token_embedding(ids) + self.positional_embedding
        x = self.ln_final(self.transformer(x))
        return x[torch.arange(len(ids), device=ids.device), ids.argmax(dim=-1)] @ self.text_projection


def normalised(features):
    return features / features.norm(dim=-1, keepdim=True)


class Training:
    """The training loop's body."""

    def __init__(self, clip, parameters, ids, dtype, total_iterations):
        self.clip, self.ids = clip.train(), ids
        self.device, self.dtype = ids.device, dtype
        self.optimiser = torch.optim.AdamW(
            parameters, lr=2e-4, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2
        )
        self.schedule = torch.optim.lr_scheduler.CosineAnnealingLR(
            self.optimiser, total_iterations, eta_min=1e-6
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=dtype == torch.float16)

    def iteration(self, images, labels):
        """Returns the loss before the update, without waiting for it."""
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            text_features = normalised(self.clip.encode_text(self.ids))
            image_features = normalised(self.clip.encode_image(images))
            logits = LOGIT_SCALE * image_features @ text_features.t()
            loss = F.cross_entropy(logits, labels)
        self.optimiser.zero_grad()
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.schedule.step()
        return loss.detach()


def random_prompts(classes, device):
    """[C, 77]. All 77 tokens are encoded, so that neither the ids nor the place of the end token changes the time."""
    ids = torch.zeros(classes, CONTEXT, dtype=torch.long)
    ids[:, 0], ids[:, 1:8], ids[:, 8] = START, torch.randint(1, START, (classes, 7)), END
    return ids.to(device)


def measure(run, iterations, warm_up, device):
    """Milliseconds of each iteration, by CUDA events, and their mean over the loop. Nothing is synchronised before its
    end."""
    for _ in range(warm_up):
        run()
    if device.type != "cuda":
        marks = [time.perf_counter()]
        for _ in range(iterations):
            run()
            marks.append(time.perf_counter())
        times = [1e3 * (b - a) for a, b in zip(marks, marks[1:], strict=False)]
        return times, statistics.fmean(times)
    events = [torch.cuda.Event(enable_timing=True) for _ in range(iterations + 1)]
    torch.cuda.synchronize()
    start = time.perf_counter()
    events[0].record()
    for event in events[1:]:
        run()
        event.record()
    torch.cuda.synchronize()
    mean = 1e3 * (time.perf_counter() - start) / iterations
    return [a.elapsed_time(b) for a, b in zip(events, events[1:], strict=False)], mean


def training_run(arguments, device, dtype):
    """What one timed iteration is."""
    architecture = ARCHITECTURES[arguments.backbone]
    clip = Clip(architecture).to(device)
    parameters = clip.adapt(arguments.r, dropout=0.25)
    ids = random_prompts(arguments.classes, device)
    training = Training(clip, parameters, ids, dtype, total_iterations=1_000_000)
    size = (arguments.batch_size, 3, architecture.resolution, architecture.resolution)
    images = torch.randn(size, device=device)
    labels = torch.randint(arguments.classes, (arguments.batch_size,), device=device)
    return lambda: training.iteration(images, labels)


def encoding_run(arguments, device, dtype):
    """A batch of images through the vision tower: with the updates merged it is the plain model's."""
    architecture = ARCHITECTURES[arguments.backbone]
    clip = Clip(architecture).to(device).eval()
    size = (arguments.batch_size, 3, architecture.resolution, architecture.resolution)
    images = torch.randn(size, device=device)

    @torch.no_grad()
    def run():
        with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
            return normalised(clip.encode_image(images))

    return run


def peak_memory_gib(device):
    """(allocated, reserved by the allocator) on a GPU; of the process on the CPU."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**30, torch.cuda.max_memory_reserved() / 2**30
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return resident, resident


def processor_name():
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def positive(text):
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def count(text):
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is below 0")
    return value


def parse_arguments(arguments=None):
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--backbone", choices=ARCHITECTURES, default="ViT-B/16")
    parser.add_argument("--classes", type=positive, default=10)
    parser.add_argument("--batch_size", type=positive, help="images; 32, and 256 with --encode")
    parser.add_argument("--r", type=positive, default=2, help="the updates' rank")
    parser.add_argument("--precision", choices=DTYPES, help="fp16 on CUDA, fp32 on the CPU")
    parser.add_argument("--device", choices=["cuda", "cpu"], help="CUDA if there is a device")
    parser.add_argument("--iterations", type=positive, help="timed ones; 200 on CUDA, 3 on the CPU")
    parser.add_argument("--warm_up", type=count, help="iterations before them; 20 on CUDA, 1 on the CPU")
    parser.add_argument("--threads", type=positive, help="of the CPU; PyTorch's choice by default")
    parser.add_argument("--encode", action="store_true", help="time encoding images, not training")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(arguments)
    options.device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    on_cuda = options.device == "cuda"
    if on_cuda and not torch.cuda.is_available():
        parser.error("--device cuda: this PyTorch finds no CUDA device")
    options.precision = options.precision or ("fp16" if on_cuda else "fp32")
    if options.precision == "fp16" and not on_cuda:
        parser.error("--precision fp16 needs CUDA; the CPU has fp32 and bf16")
    options.batch_size = options.batch_size or (256 if options.encode else 32)
    options.iterations = options.iterations or (200 if on_cuda else 3)
    if options.warm_up is None:
        options.warm_up = 20 if on_cuda else 1
    return options


def report(arguments, device, times, mean):
    quartiles = statistics.quantiles(times, n=4, method="inclusive") if len(times) > 1 else times * 3
    allocated, reserved = peak_memory_gib(device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else processor_name()
    result = {
        "what": "encode" if arguments.encode else "step",
        "backbone": arguments.backbone,
        "classes": None if arguments.encode else arguments.classes,
        "batch_size": arguments.batch_size,
        "precision": arguments.precision,
        "iterations": len(times),
        "median_ms": quartiles[1],
        "mean_ms": mean,
        "lower_quartile_ms": quartiles[0],
        "upper_quartile_ms": quartiles[2],
        "peak_memory_gib": allocated,
        "reserved_memory_gib": reserved,
        "device": name,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
    }
    if arguments.encode:
        result["images_per_second"] = 1e3 * arguments.batch_size / result["median_ms"]
    return result


def readable(result):
    if result["what"] == "encode":
        what, rate = "encoding", f", {result['images_per_second']:,.0f} images/s"
    else:
        what, rate = f"{result['classes']:,} classes", ""
    return (
        f"{result['backbone']}, {what}, batch {result['batch_size']}, {result['precision']}, {result['device']}, "
        f"PyTorch {result['torch']}: median {result['median_ms']:.2f} ms "
        f"({result['lower_quartile_ms']:.2f}-{result['upper_quartile_ms']:.2f}), mean {result['mean_ms']:.2f} ms "
        f"of {result['iterations']} iterations{rate}, peak {result['peak_memory_gib']:.2f} GiB"
    )


def main():
    arguments = parse_arguments()
    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    torch.backends.cudnn.benchmark = True
    device = torch.device(arguments.device)
    make_run = encoding_run if arguments.encode else training_run
    run = make_run(arguments, device, DTYPES[arguments.precision])
    result = report(arguments, device, *measure(run, arguments.iterations, arguments.warm_up, device))
    print(json.dumps(result) if arguments.json else readable(result), flush=True)


if __name__ == "__main__":
    main()
