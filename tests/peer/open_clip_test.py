"""OpenCLIP: its models' files and configurations."""

import json

import models
import peers

import torch

TANH = {"approximate": "tanh"}


class OpenClip(models.ModelTest):
    def check(self, configuration, **saving):
        model = models.open_clip_clip(configuration)
        folder = models.save_open_clip(
            model, configuration, self.folder / f"model{len(list(self.folder.iterdir()))}", **saving
        )
        if saving.get("dtype"):
            model = model.to(saving["dtype"]).float()
        text = configuration["text_cfg"]
        inputs = models.Inputs(
            self.folder, configuration["vision_cfg"]["image_size"], text["vocab_size"], text["context_length"]
        )
        answer, features, _ = self.describe(folder, inputs)
        self.assert_features_close(
            features, models.open_clip_features(model, inputs), json.dumps(configuration)
        )
        self.assertEqual(answer["warnings"], [], "open_clip_config.json leaves nothing to assume")
        self.assertEqual(answer["naming"], "OpenCLIP")
        return answer

    def test_models_of_both_activations_have_the_same_features(self):
        for quick_gelu in (True, False):
            for pickled in (True, False):
                self.check(models.open_clip_configuration(quick_gelu), pickled=pickled)

    def test_heads_of_other_widths_have_the_same_features(self):
        """ViT-H/14's are 80 wide, ViT-g/14's 88, its perceptrons 4.3637 times the width."""
        self.check(
            models.open_clip_configuration(
                vision={"width": 160, "head_width": 80}, text={"width": 128, "heads": 4, "layers": 2}
            )
        )
        self.check(
            models.open_clip_configuration(
                vision={
                    "width": 176,
                    "head_width": 88,
                    "mlp_ratio": 4.3637,
                    "patch_size": 14,
                    "image_size": 56,
                }
            )
        )

    def test_other_epsilons_and_contexts_have_the_same_features(self):
        self.check(
            models.open_clip_configuration(
                vision={"norm_kwargs": {"eps": 1e-3}},
                text={"context_length": 32, "norm_kwargs": {"eps": 1e-2}},
            )
        )

    def test_half_precision_files_have_the_same_features(self):
        for dtype in (torch.float16, torch.bfloat16):
            for pickled in (True, False):
                self.check(models.open_clip_configuration(), dtype=dtype, pickled=pickled)

    def test_the_preprocessing_is_honoured(self):
        preprocessing = {
            "mean": [0.1, 0.2, 0.3],
            "std": [0.4, 0.5, 0.6],
            "interpolation": "bilinear",
            "resize_mode": "longest",
            "fill_color": 99,
        }
        answer = self.check(models.open_clip_configuration(), preprocessing=preprocessing)
        expected = {
            "size_px": 64,
            "interpolation": "bilinear",
            "resize_mode": "longest",
            "fill_color": [99, 99, 99],
        }
        self.assertEqual(expected, {key: answer[key] for key in expected})
        self.assert_close(answer["mean"], [0.1, 0.2, 0.3], "mean", 1e-7)
        self.assert_close(answer["std"], [0.4, 0.5, 0.6], "std", 1e-7)

    def test_a_file_without_its_configuration_is_taken_as_quick_gelu_with_a_warning(self):
        configuration = models.open_clip_configuration(quick_gelu=True)
        model = models.open_clip_clip(configuration)
        folder = models.save_open_clip(model, configuration, self.folder / "model")
        (folder / "open_clip_config.json").unlink()
        inputs = models.Inputs(self.folder)
        answer, features, _ = self.describe(folder, inputs)
        self.assert_features_close(features, models.open_clip_features(model, inputs), "QuickGELU")
        self.assertEqual(len(answer["warnings"]), 1)
        self.assertIn("--activation", answer["warnings"][0])
        exact = models.open_clip_clip(
            models.open_clip_configuration(quick_gelu=False)
        )  # the same seed, the same weights
        answer, features, _ = self.describe(folder, inputs, activation="gelu")
        self.assert_features_close(features, models.open_clip_features(exact, inputs), "GELU")
        self.assertEqual(answer["warnings"], [])

    def test_what_no_clip_of_openais_has_is_computed_or_refused(self):
        for vision, text, others in [
            ({"act_kwargs": TANH}, {"act_kwargs": TANH}, {}),
            ({"no_ln_pre": True}, {}, {}),
            ({"ls_init_value": 0.1}, {}, {}),
            ({"pool_type": "avg"}, {}, {}),
            ({"final_ln_after_pool": True, "pool_type": "avg"}, {}, {}),
            ({"attentional_pool": True, "attn_pooler_heads": 2}, {}, {}),
            ({"pos_embed_type": "sin_cos_2d"}, {}, {}),
            ({"qk_norm": True}, {}, {}),
            ({"scale_fc": True}, {}, {}),
            ({}, {"no_causal_mask": True}, {}),
            ({}, {"pool_type": "last"}, {}),
            ({}, {"pool_type": "first"}, {}),
            ({}, {"proj_bias": True}, {}),
            ({}, {"ls_init_value": 0.1}, {}),
            ({}, {}, {"custom_text": True}),
            ({}, {}, {"init_logit_bias": -10.0}),
            ({"layers": [1, 1, 1, 1], "width": 64}, {}, {}),
        ]:
            with self.subTest(vision=vision, text=text, others=others):
                configuration = models.open_clip_configuration(vision=vision, text=text) | others
                model = models.open_clip_clip(configuration)
                folder = models.save_open_clip(
                    model, configuration, self.folder / f"model{len(list(self.folder.iterdir()))}"
                )
                inputs = models.Inputs(self.folder)
                expected = models.open_clip_features(model, inputs)
                self.assert_equal_or_refused(folder, inputs, expected, f"{vision} {text} {others}")


if __name__ == "__main__":
    peers.main()
