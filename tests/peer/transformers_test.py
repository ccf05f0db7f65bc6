"""Hugging Face: transformers' CLIPModel and PEFT's LoRA, in both directions."""

import math

import models
import peers

import open_clip
import peft
import safetensors.torch
import torch
from transformers import CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer

MIXED = {"vision": {"hidden_act": "gelu"}, "text": {"hidden_act": "quick_gelu"}}


class Checkpoints(models.ModelTest):
    def check(self, model, **saving):
        folder = self.folder / "model"
        model.save_pretrained(folder, **saving)
        inputs = models.inputs_for(model, self.folder)
        answer, features, logit_scale = self.describe(folder, inputs)
        stored = CLIPModel.from_pretrained(folder, dtype=torch.float32)
        self.assert_features_close(features, models.hugging_face_features(stored, inputs), str(saving))
        self.assert_close(logit_scale, stored.logit_scale.detach(), "logit scale")
        self.assertEqual(answer["naming"], "Hugging Face")
        self.assertEqual(answer["warnings"], [], "a folder with config.json leaves nothing to assume")

    def test_a_saved_model_has_the_same_features(self):
        self.check(models.hugging_face_clip())

    def test_a_model_unlike_openais_has_the_same_features(self):
        self.check(models.odd_hugging_face_clip())

    def test_towers_with_different_activations_have_the_same_features(self):
        self.check(models.hugging_face_clip(**MIXED))

    def test_a_sharded_model_has_the_same_features(self):
        self.check(models.hugging_face_clip(), max_shard_size="1MB")
        self.assertGreater(len(list((self.folder / "model").glob("*.safetensors"))), 3)

    def test_half_precision_files_have_the_same_features(self):
        for dtype in (torch.float16, torch.bfloat16):
            with self.subTest(dtype=dtype):
                self.check(models.hugging_face_clip().to(dtype))

    def test_the_ends_of_prompts_are_found_where_transformers_finds_them(self):
        """Old configurations say eos 2 and mean the largest id; another end token is another pooling."""
        for eos in (2, models.END):
            model = models.hugging_face_clip(text={"eos_token_id": eos})
            self.check(model)
        model = models.hugging_face_clip(text={"vocab_size": 1000, "eos_token_id": 500})
        model.save_pretrained(self.folder / "model")
        inputs = models.inputs_for(model, self.folder)
        inputs.tokens[:, 1] = 500
        inputs.save()
        self.assert_equal_or_refused(
            self.folder / "model", inputs, models.hugging_face_features(model, inputs), "eos 500"
        )

    def test_activations_of_other_models_are_computed_or_refused(self):
        for name in ("gelu_new", "gelu_pytorch_tanh", "relu", "silu"):
            model = models.hugging_face_clip(vision={"hidden_act": name})
            folder = self.folder / name
            model.save_pretrained(folder)
            inputs = models.inputs_for(model, self.folder)
            self.assert_equal_or_refused(folder, inputs, models.hugging_face_features(model, inputs), name)

    def test_the_image_processors_configuration_is_honoured(self):
        folder = self.folder / "model"
        models.hugging_face_clip().save_pretrained(folder)
        processor = CLIPImageProcessor(
            size={"shortest_edge": 72},
            crop_size={"height": 64, "width": 64},
            resample=2,
            rescale_factor=1 / 128,
            image_mean=[0.1, 0.2, 0.3],
            image_std=[0.4, 0.5, 0.6],
        )
        processor.save_pretrained(folder)
        answer = self.describe(folder, models.Inputs(self.folder))[0]
        expected = {"size_px": 64, "resize_px": 72, "resize_mode": "shortest", "interpolation": "bilinear"}
        self.assertEqual(expected, {key: answer[key] for key in expected})
        self.assert_close(answer["rescale_factor"], 1 / 128, "rescale factor", 1e-12)
        self.assert_close(answer["mean"], [0.1, 0.2, 0.3], "mean", 1e-7)
        self.assert_close(answer["std"], [0.4, 0.5, 0.6], "std", 1e-7)


VISION_LAYER_1 = "vision_model.encoder.layers.1.self_attn.q_proj"
LORAS = {
    "queries and values": {"r": 3, "lora_alpha": 5, "target_modules": ["q_proj", "v_proj"]},
    "rank-stabilised": {"r": 3, "lora_alpha": 5, "target_modules": ["q_proj", "v_proj"], "use_rslora": True},
    "every projection": {"r": 2, "lora_alpha": 7, "target_modules": models.PROJECTIONS},
    "the output projection": {"r": 4, "lora_alpha": 1, "target_modules": ["out_proj"], "use_rslora": True},
    "one tower, by a pattern": {"r": 2, "lora_alpha": 3, "target_modules": r"vision_model\..*\.(q|k)_proj"},
    "some layers": {"r": 2, "lora_alpha": 3, "target_modules": ["k_proj"], "layers_to_transform": [0, 2]},
    "ranks by module": {
        "r": 2,
        "lora_alpha": 3,
        "target_modules": ["q_proj", "v_proj"],
        "rank_pattern": {"v_proj": 5, VISION_LAYER_1: 6},
    },
    "alphas by module": {
        "r": 2,
        "lora_alpha": 3,
        "target_modules": ["q_proj", "v_proj"],
        "use_rslora": True,
        "alpha_pattern": {"v_proj": 8, VISION_LAYER_1: 1},
    },
    "ranks and alphas by module": {
        "r": 4,
        "lora_alpha": 16,
        "target_modules": models.PROJECTIONS,
        "lora_dropout": 0.1,
        "layers_to_transform": [1, 2],
        "rank_pattern": {"out_proj": 1, VISION_LAYER_1: 8},
        "alpha_pattern": {"k_proj": 3, VISION_LAYER_1: 11},
    },
}


class Adapters(models.ModelTest):
    def setUp(self):
        super().setUp()
        self.base = self.folder / "base"
        models.hugging_face_clip().save_pretrained(self.base)
        self.inputs = models.Inputs(self.folder)

    def fresh(self):
        return CLIPModel.from_pretrained(self.base)

    def assert_adapter_gives(self, adapter, expected, what):
        """Beside the weights and merged into them."""
        for merged in (False, True):
            features = self.features(self.base, self.inputs, adapter=adapter, merged=merged)
            self.assert_features_close(features, expected, what)
            scale = self.fresh().logit_scale.detach()
            self.assert_close(
                models.logits(features, scale), models.logits(expected, scale), f"{what}: logits"
            )

    def test_pefts_adapters_give_the_same_logits(self):
        untouched = models.hugging_face_features(self.fresh(), self.inputs)
        for name, options in LORAS.items():
            with self.subTest(name):
                model = models.peft_model(self.fresh(), **options)
                adapter = self.folder / name
                model.save_pretrained(adapter)
                expected = models.hugging_face_features(model, self.inputs)
                self.assertGreater((expected[0] - untouched[0]).abs().max(), 1e-2, "the adapter does nothing")
                self.assert_adapter_gives(adapter, expected, name)

    def test_pefts_adapters_come_back_bit_for_bit(self):
        for name, options in LORAS.items():
            with self.subTest(name):
                original, ours = self.folder / name, self.folder / f"{name}, back"
                model = models.peft_model(self.fresh(), **options)
                model.save_pretrained(original)
                peers.export(self.base, "peft", ours, adapter=original)
                tensors = safetensors.torch.load_file(original / "adapter_model.safetensors")
                back = safetensors.torch.load_file(ours / "adapter_model.safetensors")
                self.assertEqual(tensors.keys(), back.keys())
                for key, tensor in tensors.items():
                    self.assert_same_bits(back[key], tensor, key)
                reloaded = peft.PeftModel.from_pretrained(self.fresh(), ours).eval()
                self.assertEqual(models.peft_scalings(reloaded), models.peft_scalings(model))
                self.assert_same_configuration(ours, original)

    def assert_same_configuration(self, ours, original):
        """The values of training alone apart. Patterns may be written otherwise: what they give is compared above."""
        ours, original = (peft.LoraConfig.from_pretrained(folder) for folder in (ours, original))
        plain = not original.rank_pattern and not original.alpha_pattern
        for field in ["peft_type", "bias", "use_dora"] + (["r", "lora_alpha", "use_rslora"] if plain else []):
            self.assertEqual(getattr(ours, field), getattr(original, field), field)

    def test_an_adapter_of_the_release_gives_the_same_logits_in_peft(self):
        for params, encoder, rank, alpha in [
            ("qkv", "both", 2, 1),
            ("qkvo", "both", 3, 5),
            ("k", "vision", 4, 2),
            ("vo", "text", 1, 3),
        ]:
            with self.subTest(params=params, encoder=encoder, rank=rank):
                contents = models.authors_adapter(self.fresh(), rank, alpha, params, encoder)
                file, folder = self.folder / f"{params}_{encoder}.pt", self.folder / f"{params}_{encoder}"
                torch.save(contents, file)
                peers.export(self.base, "peft", folder, adapter=file)
                model = peft.PeftModel.from_pretrained(self.fresh(), folder).eval()
                for _, scaling in models.peft_scalings(model).values():
                    self.assertAlmostEqual(scaling, alpha / math.sqrt(rank), places=12)
                self.assert_adapter_gives(
                    file, models.hugging_face_features(model, self.inputs), params + " " + encoder
                )

    def test_an_adapter_of_the_release_comes_back_through_every_format(self):
        contents = models.authors_adapter(self.fresh(), rank=3, alpha=2, params="qkvo")
        path = self.folder / "release.pt"
        torch.save(contents, path)
        for step, kind in enumerate(["authors", "safetensors", "peft", "safetensors", "authors"]):
            out = self.folder / f"{step}.{kind}"
            peers.export(self.base, kind, out, adapter=path)
            path = out
            if kind == "authors":
                back = torch.load(path, weights_only=True)
                self.assertEqual(back["metadata"] | contents["metadata"], back["metadata"])
                self.assertEqual(back["weights"].keys(), contents["weights"].keys())
                for layer, projections in contents["weights"].items():
                    self.assertEqual(back["weights"][layer].keys(), projections.keys())
                    for projection, pair in projections.items():
                        for name, tensor in pair.items():
                            self.assert_same_bits(
                                back["weights"][layer][projection][name],
                                tensor,
                                f"{layer} {projection} {name}",
                            )

    @peers.needs_test_data
    def test_the_adapter_of_the_authors_gives_the_same_logits_in_peft(self):
        golden = peers.TEST_DATA / "golden"
        checkpoint, adapter = golden / "tiny_clip.safetensors", golden / "reference_lora_weights.pt"
        base, folder = self.folder / "tiny", self.folder / "adapter"
        peers.export(checkpoint, "hf", base)
        peers.export(checkpoint, "peft", folder, adapter=adapter)
        model = peft.PeftModel.from_pretrained(CLIPModel.from_pretrained(base), folder).eval()
        features = self.features(checkpoint, self.inputs, adapter=adapter)
        self.assert_features_close(
            features, models.hugging_face_features(model, self.inputs), "the authors' adapter"
        )


class Exports(models.ModelTest):
    """Whole models, an adapter merged into them, as their libraries load them."""

    def setUp(self):
        super().setUp()
        self.base, self.adapter = self.folder / "base", self.folder / "adapter"

    def merged(self, model, options):
        """Inputs and the features of `model` with a PEFT adapter; both are saved."""
        model.save_pretrained(self.base)
        adapted = models.peft_model(model, **options)
        adapted.save_pretrained(self.adapter)
        inputs = models.inputs_for(model, self.folder)
        return inputs, models.hugging_face_features(adapted, inputs)

    def export(self, kind, *options):
        out = self.folder / f"{len(list(self.folder.iterdir()))} {kind}"
        peers.export(self.base, kind, out, *options, adapter=self.adapter)
        return out

    def test_transformers_loads_them(self):
        for make in (
            models.hugging_face_clip,
            models.odd_hugging_face_clip,
            lambda: models.hugging_face_clip(**MIXED),
        ):
            model = make()
            with self.subTest(model.config.vision_config.hidden_act):
                inputs, expected = self.merged(
                    model, LORAS["ranks and alphas by module"] | {"layers_to_transform": None}
                )
                model, loading = CLIPModel.from_pretrained(self.export("hf"), output_loading_info=True)
                self.assertFalse([problems for problems in loading.values() if problems], loading)
                self.assert_features_close(
                    models.hugging_face_features(model.eval(), inputs), expected, "transformers"
                )

    def test_transformers_processes_images_and_texts_with_them(self):
        self.merged(models.hugging_face_clip(), LORAS["every projection"])
        out = self.export("hf")
        processor = CLIPProcessor.from_pretrained(out)
        self.assertEqual(processor.image_processor.crop_size["height"], 64)
        texts = ["a photo of a café.", "Ein Hündchen & 3 cats — it's 🙂!", ""]
        tokens = CLIPTokenizer.from_pretrained(out)(
            texts, padding="max_length", max_length=77, truncation=True
        )["input_ids"]
        expected = open_clip.tokenize(texts)
        for row, expected_row in zip(tokens, expected.tolist(), strict=True):
            end = expected_row.index(models.END) + 1
            self.assertEqual(row[:end], expected_row[:end])

    def test_open_clip_loads_them(self):
        for activation in ("quick_gelu", "gelu"):
            with self.subTest(activation):
                inputs, expected = self.merged(
                    models.hugging_face_clip({"hidden_act": activation}, {"hidden_act": activation}),
                    LORAS["every projection"],
                )
                out = self.export("openclip")
                model, _, _ = open_clip.create_model_and_transforms(f"local-dir:{out}")
                self.assert_features_close(
                    models.open_clip_features(model.eval(), inputs), expected, "open_clip"
                )

    def test_open_clip_loads_openais_names(self):
        inputs, expected = self.merged(models.hugging_face_clip(), LORAS["every projection"])
        model = open_clip.load_openai_model(str(self.export("openai")), precision="fp32", device="cpu").eval()
        # The loader keeps the weights of its matrices in float16, as OpenAI does: 11 bits of them remain.
        self.assert_features_close(
            models.open_clip_features(model, inputs), expected, "open_clip", tolerance=1e-2
        )

    def test_half_precision_exports_hold_that_type(self):
        inputs, expected = self.merged(models.hugging_face_clip(), LORAS["every projection"])
        for name, dtype, tolerance in [
            ("fp16", torch.float16, 1e-2),
            ("bf16", torch.bfloat16, 6e-2),
            ("fp32", torch.float32, 1e-4),
        ]:
            with self.subTest(name):
                out = self.export("hf", "--dtype", name)
                tensors = safetensors.torch.load_file(out / "model.safetensors")
                self.assertEqual({tensor.dtype for tensor in tensors.values()}, {dtype})
                model = CLIPModel.from_pretrained(out, dtype=torch.float32).eval()
                self.assert_features_close(
                    models.hugging_face_features(model, inputs), expected, name, tolerance
                )

    def test_ours_reads_them_back(self):
        inputs, expected = self.merged(models.hugging_face_clip(), LORAS["every projection"])
        for kind in ("hf", "openclip", "openai"):
            with self.subTest(kind):
                self.assert_features_close(self.features(self.export(kind), inputs), expected, kind)


if __name__ == "__main__":
    peers.main()
