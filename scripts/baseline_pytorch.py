#!/usr/bin/env python3
"""The yardstick: CLIP-LoRA and R-Adapter in plain eager PyTorch, with random weights of CLIP's true scale.

One training iteration as the methods' authors run it: the prompts with their 77 tokens and the batch's images go
through the towers, float32 weights under autocast, sequence first as in OpenAI's CLIP with its additive causal mask.
Then the loss, backward, GradScaler, AdamW and the schedule.

--method lora: each adapted projection forms its update B A and draws a dropout mask of its own.
--method r_adapter: after attention and MLP of every block comes z + s * drop(W z), W [D, D]; gradients are clipped, and
a moving average follows the weights.
--loss ce (lora's): cross-entropy among the prompts of all classes.
--loss mpm_nce (r_adapter's): each image is paired with a random template of its class; the pairs' loss has several
positives and a margin.

It is not slowed down by anything else: the images lie on the device, augmented and normalised, and the prompts as ids;
attention is PyTorch's fused one; frozen weights need no gradients; updates of all weights go through the multi-tensor
functions; and nothing waits for the device but GradScaler itself.

Needs PyTorch alone. Prints one line, or with --json one JSON object.

    scripts/baseline_pytorch.py --classes 100
    scripts/baseline_pytorch.py --method r_adapter --batch_size 512
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

from baseline_clip import ARCHITECTURES, Architecture, CONTEXT, Clip, ResidualAdapter, VOCABULARY

START, END = VOCABULARY - 2, VOCABULARY - 1
LOGIT_SCALE = 100.0
TEMPLATES = 80  # OpenAI's for ImageNet
DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}


@dataclasses.dataclass
class Recipe:
    """How a method is trained."""

    learning_rate: float
    min_learning_rate: float
    weight_decay: float
    warm_up: int = 0  # iterations of linear warm-up
    gradient_norm: float | None = None  # to which the gradient of all weights is clipped
    average: float | None = None  # decay of the moving average of the weights


# R-Adapter's: base-to-new.
RECIPES = {
    "lora": Recipe(2e-4, 1e-6, 1e-2),
    "r_adapter": Recipe(5e-4, 0.0, 0.0, warm_up=500, gradient_norm=1.0, average=0.9),
}
LOSSES = {"lora": "ce", "r_adapter": "mpm_nce"}  # unless another is asked for
MARGIN = 0.1


def normalised(features):
    return features / features.norm(dim=-1, keepdim=True)


class CrossEntropy:
    """Classification by the prompts of all classes."""

    def __init__(self, ids, logit_scale=LOGIT_SCALE):
        """ids: [C, 77]"""
        self.ids, self.logit_scale = ids, logit_scale

    def ids_for(self, _labels):
        return self.ids

    def loss(self, image_features, text_features, labels):
        return F.cross_entropy(self.logit_scale * image_features @ text_features.t(), labels)


class MarginNce:
    """Multi-positive margin NCE of pairs: those of one class are positives of each other."""

    def __init__(self, ids, logit_scale=LOGIT_SCALE, margin=MARGIN, smoothing=0.0):
        """ids: [C, T, 77], of every class with every template"""
        self.ids, self.logit_scale, self.margin, self.smoothing = ids, logit_scale, margin, smoothing

    def ids_for(self, labels):
        """[B, 77]: each label's prompt of a random template."""
        return self.ids[labels, torch.randint(self.ids.shape[1], labels.shape, device=labels.device)]

    def loss(self, image_features, text_features, labels):
        cosines = (image_features @ text_features.t()).float()
        positive = (labels[:, None] == labels).float()  # [B, B]
        positives = positive.sum(dim=1, keepdim=True)
        others = (len(labels) - positives).clamp(min=1.0)
        targets = positive * (1.0 - self.smoothing) / positives + (1.0 - positive) * self.smoothing / others
        margins = self.margin * (1.0 - positive)
        of_images = F.cross_entropy(self.logit_scale * (cosines + margins), targets)
        of_texts = F.cross_entropy(self.logit_scale * (cosines.t() + margins), targets)
        return 0.5 * (of_images + of_texts)


def learning_rate_factor(recipe, total_iterations):
    """Of the iteration: linear warm-up, then half a cosine to the lowest rate over the rest."""
    lowest = recipe.min_learning_rate / recipe.learning_rate

    def factor(iteration):
        if iteration < recipe.warm_up:
            return (iteration + 1) / recipe.warm_up
        part = (iteration - recipe.warm_up) / (total_iterations - recipe.warm_up)
        return lowest + (1.0 - lowest) * 0.5 * (1.0 + math.cos(math.pi * part))

    return factor


class Training:
    """The training loop's body."""

    def __init__(self, clip, parameters, objective, recipe, dtype, total_iterations):
        self.clip, self.parameters, self.objective, self.recipe = clip.train(), parameters, objective, recipe
        self.device, self.dtype = objective.ids.device, dtype
        self.averages = None if recipe.average is None else [p.detach().clone() for p in parameters]
        self.optimiser = torch.optim.AdamW(
            parameters, recipe.learning_rate, betas=(0.9, 0.999), eps=1e-8, weight_decay=recipe.weight_decay
        )
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimiser, learning_rate_factor(recipe, total_iterations)
        )
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=dtype == torch.float16)
        self.gradient_norm = None  # of the last iteration, before clipping

    def iteration(self, images, labels):
        """Returns the loss before the update, without waiting for it."""
        with torch.autocast(self.device.type, self.dtype, enabled=self.dtype != torch.float32):
            text_features = normalised(self.clip.encode_text(self.objective.ids_for(labels)))
            image_features = normalised(self.clip.encode_image(images))
            loss = self.objective.loss(image_features, text_features, labels)
        self.optimiser.zero_grad()
        self.scaler.scale(loss).backward()
        if self.recipe.gradient_norm is not None:
            self.scaler.unscale_(self.optimiser)
            self.gradient_norm = nn.utils.clip_grad_norm_(self.parameters, self.recipe.gradient_norm)
        self.scaler.step(self.optimiser)
        self.scaler.update()
        self.schedule.step()
        if self.averages is not None:
            self.follow()
        return loss.detach()

    @torch.no_grad()
    def follow(self):
        """Moves the averages towards the weights."""
        torch._foreach_lerp_(self.averages, self.parameters, 1.0 - self.recipe.average)


def random_prompts(shape, device):
    """[*shape, 77]. All 77 tokens are encoded, so that neither the ids nor the place of the end token changes the
    time."""
    ids = torch.zeros(*shape, CONTEXT, dtype=torch.long)
    ids[..., 0], ids[..., 1:8], ids[..., 8] = START, torch.randint(1, START, (*shape, 7)), END
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
    if arguments.method == "lora":
        parameters = clip.add_lora(arguments.r, dropout=0.25)
    else:
        parameters = clip.add_r_adapter(dropping=0.2)
    if arguments.loss == "ce":
        objective = CrossEntropy(random_prompts([arguments.classes], device))
    else:
        objective = MarginNce(random_prompts([arguments.classes, TEMPLATES], device))
    recipe = RECIPES[arguments.method]
    training = Training(clip, parameters, objective, recipe, dtype, total_iterations=1_000_000)
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
    parser.add_argument("--method", choices=RECIPES, default="lora")
    parser.add_argument("--loss", choices=["ce", "mpm_nce"], help="the method's own by default")
    parser.add_argument("--classes", type=positive, default=10)
    parser.add_argument("--batch_size", type=positive, help="images, or pairs; 32, and 256 with --encode")
    parser.add_argument("--r", type=positive, default=2, help="rank of lora's updates")
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
    options.loss = options.loss or LOSSES[options.method]
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
        "method": None if arguments.encode else arguments.method,
        "loss": None if arguments.encode else arguments.loss,
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
    rate = 1e3 * arguments.batch_size / result["median_ms"]
    if arguments.encode:
        result["images_per_second"] = rate
    elif arguments.loss == "mpm_nce":
        result["pairs_per_second"] = rate
    return result


def readable(result):
    what, rate = "encoding", ""
    if result["what"] == "step":
        what = f"{result['method']} by {result['loss']}, {result['classes']:,} classes"
    for unit in ("images", "pairs"):
        if f"{unit}_per_second" in result:
            rate = f", {result[f'{unit}_per_second']:,.0f} {unit}/s"
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
