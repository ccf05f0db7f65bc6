"""ONNX: the checker accepts what is exported, and onnxruntime computes what the library does."""

import json
import sys

import models
import onnx_models
import peers

FP16_TOLERANCE = 2e-2  # of a probability: 11 bits of weights and activations, times a logit scale of 14


class Onnx(onnx_models.OnnxTest):
    def setUp(self):
        super().setUp()
        self.base = self.folder / "base"

    def test_classifiers_give_the_same_probabilities(self):
        for make in (
            models.hugging_face_clip,
            lambda: models.hugging_face_clip(
                {"hidden_act": "gelu", "layer_norm_eps": 1e-3},
                {"hidden_act": "gelu", "num_attention_heads": 4},
            ),
        ):
            make().save_pretrained(self.base)
            difference = self.check_classifier(self.base, image_size=64)
            print(f"largest difference of probabilities: {difference:.1e}", file=sys.stderr)

    def test_classifiers_in_half_precision_give_nearly_the_same_probabilities(self):
        models.hugging_face_clip().save_pretrained(self.base)
        self.check_classifier(self.base, image_size=64, tolerance=FP16_TOLERANCE, options=["--dtype", "fp16"])

    def test_an_adapter_is_merged_into_the_classifier(self):
        model = models.hugging_face_clip()
        model.save_pretrained(self.base)
        adapter = self.folder / "adapter"
        models.peft_model(model, r=3, lora_alpha=4, target_modules=models.PROJECTIONS).save_pretrained(
            adapter
        )
        self.check_classifier(self.base, image_size=64, options=["--adapter", adapter], adapter=adapter)

    def test_the_file_says_what_its_classes_and_inputs_are(self):
        models.hugging_face_clip().save_pretrained(self.base)
        classifier, document = self.export(self.base)
        metadata = classifier.get_modelmeta().custom_metadata_map
        self.assertEqual(json.loads(metadata["class_names"]), onnx_models.CLASS_NAMES)
        self.assertEqual(document["class_names"], onnx_models.CLASS_NAMES)
        self.assertEqual(json.loads(metadata["preprocessing"]), document["preprocessing"])
        self.assertEqual(classifier.get_inputs()[0].shape[1:], [3, 64, 64])
        self.assertIsInstance(classifier.get_inputs()[0].shape[0], str)

    def test_towers_give_the_same_features(self):
        models.hugging_face_clip().save_pretrained(self.base)
        self.export(self.base, "--onnx_towers")
        inputs = models.Inputs(self.folder)
        image_features, text_features = map(onnx_models.normalised, self.features(self.base, inputs))
        image_tower = self.checked(self.folder / "classifier_image.onnx")
        text_tower = self.checked(self.folder / "classifier_text.onnx")
        for rows in (1, 5):
            ours = image_tower.run(["image_features"], {"images": inputs.images[:rows].numpy()})[0]
            self.assert_close(ours, image_features[:rows], "image features")
            ours = text_tower.run(["text_features"], {"tokens": inputs.tokens[:rows].numpy()})[0]
            self.assert_close(ours, text_features[:rows], "text features")


if __name__ == "__main__":
    peers.main()
