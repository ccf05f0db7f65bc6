"""Checkpoints as R-Adapter's release trains and saves them are read, and compute what its modules compute."""

import copy
import json

import models
import peers
import scripted_clip

import numpy as np
import safetensors
import torch
from PIL import Image
from torch import nn

SCALE = 0.5  # that the release merges at


class Adapter(nn.Module):
    """z + α·s·(W z); a rank above the width gives W two factors, as the release's flag does."""

    def __init__(self, width, rank):
        super().__init__()
        self.s = nn.Parameter(0.5 + torch.rand(1))
        self.factors = rank > width
        if self.factors:
            self.d = nn.Linear(width, rank, bias=False)
            self.u = nn.Linear(rank, width, bias=False)
        else:
            self.f = nn.Linear(width, width, bias=False)

    def forward(self, z):
        return z + SCALE * self.s * (self.u(self.d(z)) if self.factors else self.f(z))


class Encoder(nn.Module):
    """What the release wraps around its CLIP."""

    def __init__(self, clip):
        super().__init__()
        self.model = clip


def towers(clip, encoder):
    return [clip.visual.transformer] * (encoder != "text") + [clip.transformer] * (encoder != "vision")


def adapted_clip(encoder="both", rank=4, averaged=True):
    """A thin CLIP with adapters in its blocks, and averages of other values beside them."""
    torch.manual_seed(0)
    clip = models.shake(scripted_clip.Clip(128, 3, 16, 64, 64, 3, 48))
    for tower in towers(clip, encoder):
        width = tower.resblocks[0].ln_1.weight.numel()
        for block in tower.resblocks:
            for name in ("adapter_attn", "adapter_mlp"):
                block.add_module(name, Adapter(width, rank))
                if averaged:
                    block.add_module(name + "_cache", Adapter(width, rank))
    return clip


@torch.no_grad()
def features(clip, inputs):
    """Of the model with the adapters behind its modules, not merged; the averages where there are any."""
    hooked = copy.deepcopy(clip)
    for block in [*hooked.visual.transformer.resblocks, *hooked.transformer.resblocks]:
        for name, module in (("adapter_attn", block.attn), ("adapter_mlp", block.mlp)):
            adapter = getattr(block, name + "_cache", getattr(block, name, None))
            if adapter is not None:
                module.register_forward_hook(lambda module, args, out, adapter=adapter: adapter(out))
    return hooked.visual(inputs.images), hooked.encode_text(inputs.tokens)


class RAdapterRelease(models.ModelTest):
    def save(self, clip):
        """(the checkpoint of the model alone, that of its training)."""
        checkpoint, release = self.folder / "clip.pt", self.folder / "checkpoint_10.pt"
        plain = {name: tensor for name, tensor in clip.state_dict().items() if "adapter" not in name}
        torch.save(plain, checkpoint)
        trained = [p for name, p in clip.named_parameters() if "adapter" in name and "cache" not in name]
        optimizer = torch.optim.AdamW([{"params": trained, "weight_decay": 0.0}], lr=5e-4)
        for parameter in trained:
            parameter.grad = torch.zeros_like(parameter)
        optimizer.step()
        state = {
            "epoch": 10,
            "name": "ImageNet/R-Adapter_few_shot_16shot",
            "state_dict": nn.DataParallel(Encoder(clip)).state_dict(),
            "optimizer": optimizer.state_dict(),
        }
        torch.save(state, release)
        return checkpoint, release

    def check(self, **options):
        clip = adapted_clip(**options)
        checkpoint, release = self.save(clip)
        inputs = models.Inputs(self.folder)
        ours = self.features(checkpoint, inputs, adapter=release, merged=True)
        self.assert_features_close(ours, features(clip, inputs), f"{options}")
        return clip, checkpoint, release, inputs

    def test_features_are_those_of_the_releases_modules(self):
        clip, checkpoint, _, inputs = self.check()
        plain = self.features(checkpoint, inputs)
        for ours, adapted in zip(plain, features(clip, inputs)):
            self.assertGreater((ours - adapted).abs().max(), 0.05 * adapted.abs().max())  # the adapter matters

    def test_without_averages_the_weights_are_used(self):
        self.check(averaged=False)

    def test_one_tower(self):
        for encoder in ("text", "vision"):
            self.check(encoder=encoder)

    def test_ranks_above_a_width(self):
        self.check(rank=100)  # factors in the text tower, of width 64, alone
        self.check(rank=200)

    def test_the_program_uses_exports_and_describes_it(self):
        clip, checkpoint, release, inputs = self.check()
        exported = self.folder / "exported.pt"
        peers.export(checkpoint, "openai", exported, adapter=release)
        self.assert_features_close(self.features(exported, inputs), features(clip, inputs), "merged export")

        ours = self.folder / "ours.safetensors"
        peers.export(checkpoint, "safetensors", ours, adapter=release)
        with safetensors.safe_open(ours, "pt") as file:
            self.assertEqual(json.loads(file.metadata()["context"])["eval_scale"], SCALE)
            name = "visual.transformer.resblocks.1.adapter_mlp"
            average = clip.visual.transformer.resblocks[1].adapter_mlp_cache
            self.assert_same_bits(file.get_tensor(name + ".weight"), average.f.weight.detach(), name)
        again = self.features(checkpoint, inputs, adapter=ours, merged=True)
        self.assert_features_close(again, features(clip, inputs), "our format")

        report = json.loads(peers.clip_lora("inspect", release, "--checkpoint", checkpoint, "--json"))
        self.assertEqual((report["format"], report["method"]), ("r_adapter_release", "r_adapter"))
        self.assertEqual((report["fits"], report["adapter_rank"], report["encoder"]), (True, "0", "both"))
        self.assertEqual(report["settings"]["epoch"], 10)

        picture = self.folder / "picture.png"
        rng = np.random.default_rng(1)
        Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(picture)
        embedded = []
        for adapter in (release, ours):
            out = self.folder / f"{adapter.stem}.npy"
            peers.clip_lora("embed", picture, "--checkpoint", checkpoint, "--adapter", adapter, "--out", out)
            embedded.append(np.load(out))
        self.assert_same_bits(*embedded, "embedded with either file")

    def test_of_another_backbone_is_refused(self):
        _, release = self.save(adapted_clip())
        torch.manual_seed(1)
        other = self.folder / "other.pt"
        torch.save(scripted_clip.Clip(128, 3, 16, 64, 64, 3, 48).state_dict(), other)
        with self.assertRaisesRegex(RuntimeError, "another backbone"):
            self.features(other, models.Inputs(self.folder), adapter=release)


if __name__ == "__main__":
    peers.main()
