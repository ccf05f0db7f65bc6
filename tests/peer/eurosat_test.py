"""A model of ours, trained on a real data set, is as accurate in the programs that it is exported to."""

import json
import sys

import onnx_models
import peers

import numpy as np
import peft
import torch
from PIL import Image
from transformers import CLIPModel, CLIPTokenizer

BATCH = 300


def read(path):
    with Image.open(path) as file:
        return np.asarray(file.convert("RGB"), np.float32)


def images_and_labels(folder, preprocessing):
    """Batches of normalised images [B, 3, 64, 64], which is the model's size, and their labels."""
    items = json.loads((folder / "split_zhou_EuroSAT.json").read_text())["test"]
    mean, std = (np.float32(preprocessing[key]).reshape(3, 1, 1) for key in ("mean", "std"))
    for start in range(0, len(items), BATCH):
        batch = items[start : start + BATCH]
        images = [read(folder / "2750" / path) for path, _, _ in batch]
        yield (np.stack(images).transpose(0, 3, 1, 2) / np.float32(255) - mean) / std, np.array(
            [label for _, label, _ in batch]
        )


@peers.needs_test_data
class EuroSat(onnx_models.OnnxTest):
    @classmethod
    def setUpClass(cls):
        pass  # the program alone is asked here

    def setUp(self):
        super().setUp()
        data = peers.TEST_DATA / "data" / "coop"
        self.checkpoint = peers.TEST_DATA / "models" / "small_clip_64px.safetensors"
        self.pictures = data / "eurosat"
        options = "--shots 4 --n_iters 10 --lr 4e-3 --device cpu --quiet".split()
        peers.clip_lora(
            "--dataset",
            "eurosat",
            "--root_path",
            data,
            "--checkpoint",
            self.checkpoint,
            "--save_path",
            self.folder / "results",
            *options,
        )
        (results,) = (self.folder / "results").rglob("results.json")
        self.results = json.loads(results.read_text())
        self.adapter = self.results["adapter"]
        peers.export(self.checkpoint, "onnx", self.folder / "classifier.onnx", adapter=self.adapter)
        self.document = json.loads((self.folder / "classifier.onnx.json").read_text())

    def assert_as_accurate(self, what, classify):
        """`classify` turns images into labels. One image may differ: near ties exist."""
        right, count = 0, 0
        for images, labels in images_and_labels(self.pictures, self.document["preprocessing"]):
            right += int((classify(images) == labels).sum())
            count += len(labels)
        ours = self.results["accuracy"] / 100 * count
        print(
            f"{what}: {right} of {count}, ours {ours:.1f}, zero-shot {self.results['zero_shot_accuracy']:.2f} %",
            file=sys.stderr,
        )
        self.assertGreater(
            self.results["accuracy"], self.results["zero_shot_accuracy"] + 10, "the adapter learnt nothing"
        )
        self.assertLessEqual(abs(right - ours), 1.01, what)

    def test_as_many_test_images_are_right_in_onnxruntime_and_in_transformers_with_peft(self):
        classifier = self.checked(self.folder / "classifier.onnx")
        self.assert_as_accurate(
            "onnxruntime", lambda images: classifier.run(["probabilities"], {"images": images})[0].argmax(-1)
        )
        self.assert_as_accurate("transformers and PEFT", self.peft_classifier())

    def peft_classifier(self):
        base, folder = self.folder / "base", self.folder / "peft"
        peers.export(self.checkpoint, "hf", base)
        peers.export(self.checkpoint, "peft", folder, adapter=self.adapter)
        model = (
            peft.PeftModel.from_pretrained(CLIPModel.from_pretrained(base), folder).eval().get_base_model()
        )
        prompts = [self.document["templates"][0].replace("{}", name) for name in self.document["class_names"]]
        tokens = CLIPTokenizer.from_pretrained(base)(prompts, padding=True, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            classes = onnx_models.normalised(
                model.text_projection(model.text_model(input_ids=tokens).pooler_output)
            )

        @torch.no_grad()
        def classify(images):
            pooled = model.vision_model(pixel_values=torch.from_numpy(images)).pooler_output
            return (onnx_models.normalised(model.visual_projection(pooled)) @ classes.T).argmax(-1).numpy()

        return classify


if __name__ == "__main__":
    peers.main()
