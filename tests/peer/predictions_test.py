"""What `predict` and `embed` write is read by Python's own readers, NumPy and safetensors, and is what transformers
computes."""

import csv
import io
import json
import subprocess

import models
import peers

import numpy as np
import safetensors.numpy
import torch
from PIL import Image, ImageOps
from torchvision import transforms
from transformers import CLIPImageProcessor, CLIPTokenizer

NAMES = ['plain.png', 'a, "quoted".jpg', "line\nbreak.png", "été 夏.jpg", " spaces .png"]
CLASSES = ["tabby cat", 'the "great", dane', "hen"]
TURNED = 6  # EXIF: the row 0 is the right side


class Predictions(peers.PeerTest):
    def setUp(self):
        super().setUp()
        self.model = models.hugging_face_clip()
        self.checkpoint = self.folder / "model"
        self.model.save_pretrained(self.checkpoint)
        processor = CLIPImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
        processor.save_pretrained(self.checkpoint)
        # Pillow's pixels, which the newer image processors of transformers come near only.
        self.preprocess = transforms.Compose(
            [
                transforms.Resize(64, transforms.InterpolationMode.BICUBIC),
                transforms.CenterCrop(64),
                transforms.ToTensor(),
                transforms.Normalize(processor.image_mean, processor.image_std),
            ]
        )
        rng = np.random.default_rng(1)
        self.files = [self.folder / "photos" / name for name in NAMES]
        self.files[0].parent.mkdir()
        for place, path in enumerate(self.files):
            coarse = rng.integers(0, 256, (7, 5 + place, 3), np.uint8)
            picture = Image.fromarray(coarse).resize((90 + 10 * place, 120), Image.Resampling.BICUBIC)
            exif = Image.Exif()
            exif[0x0112] = TURNED
            picture.save(path, exif=exif)
        self.names = self.folder / "names.json"
        self.names.write_text(json.dumps(CLASSES))

    @torch.no_grad()
    def expected_features(self):
        """Of the photos as they were held."""
        photos = [ImageOps.exif_transpose(Image.open(path)).convert("RGB") for path in self.files]
        pixels = torch.stack([self.preprocess(photo) for photo in photos])
        features = self.model.visual_projection(self.model.vision_model(pixel_values=pixels).pooler_output)
        return torch.nn.functional.normalize(features, dim=-1)

    def embed(self, name, *options):
        out = self.folder / name
        peers.clip_lora("embed", *self.files, "--checkpoint", self.checkpoint, "--out", out, *options)
        self.assertEqual(json.loads((out.parent / f"{out.name}.json").read_text())["files"], list(map(str, self.files)))
        return out

    def predict(self, *options):
        """The bytes that are printed for names that come, NUL-separated, from a pipe."""
        names = b"".join(str(path).encode() + b"\0" for path in self.files)
        command = [peers.PROGRAM, "predict", "-", "--null", "--checkpoint", self.checkpoint, "--class_names", self.names]
        result = subprocess.run([*command, *options], input=names, capture_output=True)
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        return result.stdout.decode()

    def test_features_are_those_of_transformers(self):
        features = np.load(self.embed("features.npy"))
        self.assertEqual(features.dtype, np.float32)
        self.assert_close(features, self.expected_features(), "features")
        stored = safetensors.numpy.load_file(self.embed("stored.safetensors"))
        self.assert_same_bits(stored["image_features"], features, "safetensors")

    def test_turning_is_left_out_if_told_so(self):
        turned, ignored = np.load(self.embed("a.npy")), np.load(self.embed("b.npy", "--exif", "ignore"))
        self.assertGreater(np.abs(turned - ignored).max(), 1e-3)

    def test_probabilities_are_those_of_transformers(self):
        tokenizer = CLIPTokenizer.from_pretrained(self.tokenizer())
        prompts = [f"a photo of a {name}." for name in CLASSES]
        ids = tokenizer(prompts, padding="max_length", max_length=77, return_tensors="pt")["input_ids"]
        with torch.no_grad():
            texts = self.model.text_projection(self.model.text_model(input_ids=ids).pooler_output)
        cosines = self.expected_features() @ torch.nn.functional.normalize(texts, dim=-1).T
        expected = (100 * cosines).softmax(-1)
        rows = [json.loads(line) for line in self.predict("--format", "jsonl").splitlines()]
        self.assertEqual([row["path"] for row in rows], list(map(str, self.files)))
        for row, probabilities in zip(rows, expected):
            ours = {entry["class"]: entry["probability"] for entry in row["predictions"]}
            # Cosines that differ by 1e-6 make logits that differ by 1e-4.
            self.assert_close([ours[name] for name in CLASSES], probabilities, row["path"], tolerance=1e-3)

    def tokenizer(self):
        """A folder with the tokenizer, which an export writes."""
        out = self.folder / "exported"
        peers.export(self.checkpoint, "hf", out)
        return out

    def test_csv_is_read_by_pythons_reader(self):
        rows = list(csv.DictReader(io.StringIO(self.predict("--format", "csv", "--top_k", "2"), newline="")))
        lines = [json.loads(line) for line in self.predict("--format", "jsonl").splitlines()]
        for row, line in zip(rows, lines, strict=True):
            self.assertEqual(row["path"], line["path"])
            for suffix, entry in zip(("", "_2"), line["predictions"]):
                self.assertEqual(row["class" + suffix], entry["class"])
                self.assertEqual(float(row["probability" + suffix]), entry["probability"])


if __name__ == "__main__":
    peers.main()
