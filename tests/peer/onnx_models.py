"""Exports to ONNX, as onnxruntime runs them."""

import json
import os

import models
import peers

import numpy as np
import onnx
import onnxruntime
import open_clip
import torch

CLASS_NAMES = ["golden retriever", "Hündchen", "forest", "T-shirt", "sea or lake", "a", "annual crop land"]


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = int(os.environ.get("OMP_NUM_THREADS", 2))
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


class OnnxTest(models.ModelTest):
    def export(self, checkpoint, *options):
        """(onnxruntime's session, the document beside the file) of a classifier that the checker accepts."""
        names = self.folder / "class_names.txt"
        names.write_text("\n".join(CLASS_NAMES) + "\n", encoding="utf-8")
        out = self.folder / "classifier.onnx"
        peers.export(checkpoint, "onnx", out, "--class_names", names, "--force", *options)
        return self.checked(out), json.loads(
            (self.folder / "classifier.onnx.json").read_text(encoding="utf-8")
        )

    def checked(self, path):
        onnx.checker.check_model(str(path), full_check=True)
        proto = onnx.load(path, load_external_data=False)
        self.assertGreaterEqual(proto.opset_import[0].version, 17)
        return session(path)

    def inputs(self, image_size, images=6):
        """Images, and the prompts of the classes."""
        inputs = models.Inputs(self.folder, image_size, images=images)
        inputs.tokens = open_clip.tokenize([f"a photo of a {name}." for name in CLASS_NAMES])
        inputs.save()
        return inputs

    def check_classifier(self, checkpoint, image_size, images=6, tolerance=1e-4, options=(), **model):
        """The largest difference of a probability from what the library's features give."""
        classifier, _ = self.export(checkpoint, *options)
        inputs = self.inputs(image_size, images)
        _, features, logit_scale = self.describe(checkpoint, inputs, **model)
        expected = models.logits(features, logit_scale.double()).softmax(-1).numpy()
        self.assertGreater(expected.std(axis=0).max(), 1e-3, "the images are all alike")
        largest = 0.0
        for batch in (inputs.images[:1], inputs.images):  # the batch's axis is free
            probabilities = classifier.run(["probabilities"], {"images": batch.numpy()})[0]
            self.assertEqual(probabilities.dtype, np.float32)
            largest = max(largest, float(np.abs(probabilities - expected[: len(batch)]).max()))
        self.assertLessEqual(largest, tolerance)
        return largest


def normalised(features):
    return torch.nn.functional.normalize(features, dim=-1)
