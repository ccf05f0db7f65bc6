"""The benchmarks' yardstick, scripts/baseline_pytorch.py, against numbers that the authors' own code computed: it can
only say how fast the method is if it is the method."""

import importlib.util
import sys

import peers

import safetensors.torch
import torch


def load_baseline():
    sys.path.insert(0, str(peers.SOURCE / "scripts"))  # where the script finds what it imports
    specification = importlib.util.spec_from_file_location(
        "baseline_pytorch", peers.SOURCE / "scripts" / "baseline_pytorch.py"
    )
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


baseline = load_baseline()
TINY = baseline.Architecture(128, 3, 16, 64, 128, 3, 64)


def golden(name):
    return safetensors.torch.load_file(peers.TEST_DATA / "golden" / name)


def tiny_clip():
    """The goldens' random CLIP, its float16 values as float32."""
    clip = baseline.Clip(TINY)
    tensors = {name: tensor.float() for name, tensor in golden("tiny_clip.safetensors").items()}
    del tensors["logit_scale"]  # the method's factor is 100, whatever the model's
    clip.load_state_dict(tensors)
    return clip


def model_logit_scale():
    """R-Adapter's factor: the model's own."""
    return golden("tiny_clip.safetensors")["logit_scale"].float().exp().item()


def adapters(clip):
    """{"vision.0.attn": ResidualAdapter} by the goldens' names."""
    towers = {"vision": clip.visual.transformer, "text": clip.transformer}
    return {
        f"{tower}.{i}.{place}": getattr(block, f"adapter_{place}")
        for tower, transformer in towers.items()
        for i, block in enumerate(transformer.resblocks)
        for place in ("attn", "mlp")
    }


def adapter_tensors(clip):
    return {
        f"{name}.{kind}": tensor
        for name, adapter in adapters(clip).items()
        for kind, tensor in adapter.named_parameters()
    }


@torch.no_grad()
def assign(clip, expected, prefix, scale=1.0):
    """The golden's weights; `scale` is a factor on s."""
    for name, tensor in adapter_tensors(clip).items():
        tensor.copy_(expected[prefix + name] * (scale if name.endswith("scale") else 1.0))


class BaselineTest(peers.PeerTest):
    @peers.needs_test_data
    def test_features_are_the_reference_s(self):
        clip, expected = tiny_clip(), golden("tiny_forward.safetensors")
        with torch.no_grad():
            self.assert_close(clip.encode_image(expected["images"]), expected["image_features"], "images")
            self.assert_close(clip.encode_text(expected["tokens"].long()), expected["text_features"], "text")

    @peers.needs_test_data
    def test_twenty_updates_reproduce_the_reference(self):
        expected = golden("trajectory.safetensors")
        clip = tiny_clip()
        parameters = clip.add_lora(rank=2, dropout=0.0)
        start = {name.removeprefix("init/"): t for name, t in expected.items() if name.startswith("init/")}
        self.assertEqual(len(parameters), len(start))
        clip.load_state_dict(start, strict=False)
        images, targets = expected["images_f16"].float(), expected["targets"]
        ids = golden("tiny_forward.safetensors")["tokens"].long()
        training = baseline.Training(
            clip,
            parameters,
            baseline.CrossEntropy(ids),
            baseline.RECIPES["lora"],
            torch.float32,
            total_iterations=len(images),
        )
        losses = [training.iteration(*batch).item() for batch in zip(images, targets, strict=True)]
        for iteration, (loss, reference) in enumerate(zip(losses, expected["losses"].tolist(), strict=True)):
            # float32 sums in another order, after up to 20 updates
            self.assertLessEqual(abs(loss - reference), 1e-4 * reference, f"loss of iteration {iteration}")
        named = dict(clip.named_parameters())
        for name, tensor in expected.items():
            if name.startswith("final/"):
                self.assert_close(named[name.removeprefix("final/")].detach(), tensor, name)

    def test_only_a_s_and_b_s_are_trained_and_each_projection_has_its_own_mask(self):
        clip = baseline.Clip(TINY)
        parameters = clip.add_lora(rank=2, dropout=0.25)
        self.assertEqual(len(parameters), 2 * 3 * (TINY.vision_layers + TINY.text_layers))
        frozen = [p for name, p in clip.named_parameters() if "lora" not in name]
        self.assertFalse(any(p.requires_grad for p in frozen))
        attention = clip.visual.transformer.resblocks[0].attn
        with torch.no_grad():
            for projection in (attention.q_proj, attention.k_proj):
                projection.weight.copy_(attention.v_proj.weight)
                projection.w_lora_A.copy_(attention.v_proj.w_lora_A)
                projection.w_lora_B.fill_(1.0)
        x = torch.ones(1, 10, TINY.vision_width)
        self.assertFalse(torch.equal(attention.q_proj(x), attention.k_proj(x)))

    def test_numbers_of_the_report(self):
        arguments = baseline.parse_arguments(["--device", "cpu", "--iterations", "4", "--classes", "3"])
        result = baseline.report(arguments, torch.device("cpu"), [5.0, 1.0, 3.0, 2.0], mean=2.4)
        self.assertEqual((result["median_ms"], result["mean_ms"]), (2.5, 2.4))
        self.assertEqual((result["lower_quartile_ms"], result["upper_quartile_ms"]), (1.75, 3.5))
        self.assertIn("lora by ce, 3 classes", baseline.readable(result))
        self.assertNotIn("pairs_per_second", result)

    def test_numbers_of_the_report_of_pairs(self):
        arguments = baseline.parse_arguments(["--device", "cpu", "--method", "r_adapter", "--batch_size", "8"])
        result = baseline.report(arguments, torch.device("cpu"), [5.0, 1.0, 3.0, 2.0], mean=2.4)
        self.assertEqual((result["method"], result["loss"]), ("r_adapter", "mpm_nce"))
        self.assertEqual(result["pairs_per_second"], 3200.0)
        self.assertIn("3,200 pairs/s", baseline.readable(result))


class RAdapterBaselineTest(peers.PeerTest):
    def setUp(self):
        super().setUp()
        if peers.TEST_DATA is None:
            self.skipTest("CLIP_LORA_TEST_DATA is unset")
        forward = golden("tiny_forward.safetensors")
        self.images, self.labels = forward["images"], forward["targets"]
        self.ids = forward["tokens"].long()[:, None]  # [C, 1, 77]: one template
        self.clip = tiny_clip()
        self.parameters = self.clip.add_r_adapter(dropping=0.0)
        self.objective = baseline.MarginNce(self.ids, model_logit_scale(), margin=0.05, smoothing=0.02)

    def features(self):
        return (
            baseline.normalised(self.clip.encode_image(self.images)),
            baseline.normalised(self.clip.encode_text(self.objective.ids_for(self.labels))),
        )

    def assert_features(self, expected, prefix):
        with torch.no_grad():
            for ours, name in zip(self.features(), ("image_features", "text_features"), strict=True):
                self.assert_close(ours, expected[prefix + name], prefix + name)

    def assert_loss_and_gradients(self, expected, prefix):
        features = self.features()
        loss = self.objective.loss(*features, self.labels)
        loss.backward()
        for ours, name in zip(features, ("image_features", "text_features"), strict=True):
            self.assert_close(ours.detach(), expected[prefix + name], prefix + name)
        self.assert_close(loss.detach().reshape(1), expected[prefix + "loss"], "loss")
        named = adapter_tensors(self.clip)
        gradients = [name for name in expected if name.startswith((prefix + "grad/", prefix + "grad."))]
        self.assertTrue(gradients)
        for name in gradients:
            self.assert_close(named[name[len(prefix + "grad/") :]].grad, expected[name], name)

    def assert_trained(self, ours, expected, what):
        """By the norm: AdamW turns the rounding of a gradient that is almost 0 into a step, so that single weights of
        float32 runs lie up to 1e-3 of the largest apart, from float64's too; a norm reaches 1e-5."""
        difference = ((ours - expected).norm() / expected.norm()).item()
        self.assertLessEqual(difference, 5e-5, f"{what}: relative norm {difference:.2e}")

    def test_features_loss_and_gradients_are_the_reference_s(self):
        expected = golden("radapter_forward.safetensors")
        assign(self.clip, expected, "param/")
        self.assertEqual(len(self.parameters), sum(name.startswith("grad/") for name in expected))
        self.assert_loss_and_gradients(expected, "")

    def test_dropped_positions_are_the_reference_s(self):
        expected = golden("radapter_forward.safetensors")
        assign(self.clip, expected, "param/")
        for name, adapter in adapters(self.clip).items():
            keep = expected[f"drop/keep.{name}"].view(-1, 1, 1)
            adapter.keep = lambda length, keep=keep: keep[:length]
            adapter.dropping = 0.2
        self.assert_loss_and_gradients(expected, "drop/")

    def test_the_rescaled_average_is_the_reference_s(self):
        expected = golden("radapter_forward.safetensors")
        self.clip.eval()
        for prefix, scale in (("eval/", 0.5), ("eval08/", 0.8)):
            assign(self.clip, expected, "ema/", scale)
            self.assert_features(expected, prefix)

    def test_the_pairs_loss_is_the_reference_s(self):
        expected = golden("mpm_nce.safetensors")
        for case, (smoothing, margin, logit_scale) in enumerate(
            [(0.02, 0.05, 100.0), (0.0, 0.1, 100.0), (0.0, 0.0, 100.0), (0.1, 0.05, 14.2857)]
        ):
            features = [
                expected[name].clone().requires_grad_() for name in ("image_features", "text_features")
            ]
            objective = baseline.MarginNce(self.ids, logit_scale, margin, smoothing)
            loss = objective.loss(*features, expected["labels"])
            loss.backward()
            self.assert_close(loss.detach().reshape(1), expected[f"case{case}/loss"], f"loss of case {case}")
            for ours, name in zip(features, ("grad_image", "grad_text"), strict=True):
                self.assert_close(ours.grad, expected[f"case{case}/{name}"], f"{name} of case {case}")

    def test_twenty_updates_reproduce_the_reference(self):
        expected = golden("radapter_trajectory.safetensors")
        recipe = baseline.Recipe(5e-3, 0.0, 0.0, warm_up=5, gradient_norm=1.0, average=0.9)
        training = baseline.Training(
            self.clip, self.parameters, self.objective, recipe, torch.float32, total_iterations=20
        )
        for iteration in range(20):
            rate = training.schedule.get_last_lr()[0]
            self.assertAlmostEqual(rate, expected["lrs"][iteration].item(), delta=1e-15)
            loss = training.iteration(self.images, self.labels).item()
            for ours, name in ((loss, "losses"), (training.gradient_norm.item(), "grad_norms")):
                reference = expected[name][iteration].item()
                # float32 sums in another order, after up to 20 updates
                self.assertLessEqual(abs(ours - reference), 1e-4 * reference, f"{name} of iteration {iteration}")
        named = adapter_tensors(self.clip)
        for parameter, average in zip(self.parameters, training.averages, strict=True):
            name = next(name for name, tensor in named.items() if tensor is parameter)
            self.assert_trained(parameter.detach(), expected[f"final/{name}"], f"final {name}")
            self.assert_trained(average, expected[f"final_ema/{name}"], f"average {name}")
        assign(self.clip.eval(), expected, "final_ema/", 0.5)
        self.assert_features(expected, "eval/")

    def test_a_position_is_dropped_for_all_sequences_and_templates_are_drawn_per_pair(self):
        adapter = baseline.ResidualAdapter(8, dropping=0.2)
        with torch.no_grad():
            adapter.weight.copy_(torch.eye(8))
        factors = adapter(torch.ones(10_000, 2, 8)) - 1.0  # [L, B, D]
        self.assertTrue(torch.equal(factors, factors[:, :1, :1].expand_as(factors)))
        self.assertAlmostEqual((factors[:, 0, 0] == 0.0).float().mean().item(), 0.2, delta=0.02)
        self.assertAlmostEqual(factors.max().item(), 0.1 / 0.8, delta=1e-6)
        ids = torch.arange(3 * 80)[:, None].expand(-1, 77).reshape(3, 80, 77)
        labels = torch.tensor([2, 0]).repeat(1000)
        drawn = baseline.MarginNce(ids).ids_for(labels)[:, 0]
        self.assertTrue(torch.equal(drawn // 80, labels))
        self.assertEqual(len(drawn.unique()), 160)


if __name__ == "__main__":
    peers.main()
