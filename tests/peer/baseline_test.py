"""The benchmarks' yardstick, scripts/baseline_pytorch.py, against numbers that the authors' own code computed: it can
only say how fast the method is if it is the method."""

import importlib.util

import peers

import safetensors.torch
import torch


def load_baseline():
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
        parameters = clip.adapt(rank=2, dropout=0.0)
        start = {name.removeprefix("init/"): t for name, t in expected.items() if name.startswith("init/")}
        self.assertEqual(len(parameters), len(start))
        clip.load_state_dict(start, strict=False)
        images, targets = expected["images_f16"].float(), expected["targets"]
        ids = golden("tiny_forward.safetensors")["tokens"].long()
        training = baseline.Training(clip, parameters, ids, torch.float32, total_iterations=len(images))
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
        parameters = clip.adapt(rank=2, dropout=0.25)
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
        self.assertIn("3 classes", baseline.readable(result))


if __name__ == "__main__":
    peers.main()
