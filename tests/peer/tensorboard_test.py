"""The event files of a training are read by TensorBoard's own reader, also after interruptions."""

import json
import math
import signal
import subprocess
import time

import models
import peers

import numpy as np
from PIL import Image
from tensorboard.backend.event_processing import event_accumulator
from transformers import CLIPImageProcessor

ITERATIONS = 400
EVERY = 7
VALIDATE_EVERY = 60


class TensorBoard(peers.PeerTest):
    def setUp(self):
        super().setUp()
        self.checkpoint = self.folder / "model"
        models.hugging_face_clip().save_pretrained(self.checkpoint)
        processor = CLIPImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
        processor.save_pretrained(self.checkpoint)
        rng = np.random.default_rng(1)
        for split, pictures in [("train", 4), ("val", 2), ("test", 2)]:
            for name in ["cat", "dog"]:
                folder = self.folder / "photos" / split / name
                folder.mkdir(parents=True)
                for i in range(pictures):
                    Image.fromarray(rng.integers(0, 256, (64, 64, 3), np.uint8)).save(folder / f"{i}.png")

    def arguments(self, *more):
        flags = f"--shots 4 --n_iters {ITERATIONS // 4} --batch_size 4 --workers 1 --device cpu --tensorboard"
        flags += f" --log_every {EVERY} --eval_every {VALIDATE_EVERY}"
        named = ["--dataset", self.folder / "photos", "--checkpoint", self.checkpoint]
        return [*map(str, named), *flags.split(), "--save_path", str(self.folder / "runs"), *more]

    def result_folder(self):
        return next((self.folder / "runs").glob("*/photos/4shots/seed1"))

    def scalars(self):
        reader = event_accumulator.EventAccumulator(
            str(self.result_folder() / "tensorboard"), size_guidance={event_accumulator.SCALARS: 0}
        )
        reader.Reload()
        return {tag: [(e.step, e.value) for e in reader.Scalars(tag)] for tag in reader.Tags()["scalars"]}

    def check(self):
        lines = [json.loads(line) for line in (self.result_folder() / "metrics.jsonl").read_text().splitlines()]
        steps = [*range(EVERY, ITERATIONS + 1, EVERY), ITERATIONS]
        self.assertEqual([line["iteration"] for line in lines], steps)
        scalars = self.scalars()
        names = [name for name in lines[0] if name != "iteration"]
        self.assertEqual(set(scalars), {f"training/{name}" for name in names} | {"validation/accuracy"})
        for name in names:
            expected = [(line["iteration"], float(np.float32(line[name]))) for line in lines]
            self.assertEqual(scalars[f"training/{name}"], expected)
            self.assertTrue(all(math.isfinite(value) for _, value in expected))
        results = json.loads((self.result_folder() / "results.json").read_text())
        looks = [(point["iteration"], point["accuracy"]) for point in results["validation"]]
        self.assertEqual(scalars["validation/accuracy"], looks)

    def test_reads_what_metrics_jsonl_says(self):
        peers.clip_lora(*self.arguments())
        self.check()

    def test_reads_each_step_once_after_a_training_was_killed(self):
        arguments = self.arguments("--checkpoint_every", "50", "--resume")
        for stop in [signal.SIGTERM, signal.SIGKILL]:
            run = subprocess.Popen([peers.PROGRAM, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
            iterations = self.iterations_logged()
            deadline = time.monotonic() + 60
            while self.iterations_logged() < iterations + 80 and time.monotonic() < deadline:
                time.sleep(0.01)
            run.send_signal(stop)
            run.communicate()
            self.assertNotEqual(run.returncode, 0)
        peers.clip_lora(*arguments)
        self.assertGreater(len(list((self.result_folder() / "tensorboard").iterdir())), 1)
        self.check()

    def iterations_logged(self):
        for path in (self.folder / "runs").glob("*/photos/4shots/seed1/metrics.jsonl"):
            return path.read_text().count("\n") * EVERY
        return 0


if __name__ == "__main__":
    peers.main()
