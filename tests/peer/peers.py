"""What the tests against other people's libraries share. They are run by ctest, or by hand:

    CLIP_LORA_PROGRAM=build/release/bin/clip_lora CLIP_LORA_DRIVERS=build/release/tests \\
      .deps/venv/bin/python tests/peer/tokenizer_test.py
"""

import atexit
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import unittest

SKIPPED = 77  # the exit code that ctest shows as skipped
PACKAGES = [
    "numpy",
    "onnx",
    "onnxruntime",
    "open_clip",
    "peft",
    "PIL",
    "safetensors",
    "tensorboard",
    "torch",
    "torchvision",
    "transformers",
]

# Nothing is fetched: every model is random and every file is made here.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

missing = [package for package in PACKAGES if importlib.util.find_spec(package) is None]
if missing:
    print(f"Skipped: Python packages are missing: {', '.join(missing)} (hint: scripts/setup.sh --peers)")
    sys.exit(SKIPPED)

import numpy as np  # noqa: E402  (after the check)

SOURCE = pathlib.Path(__file__).resolve().parents[2]
PROGRAM = os.environ["CLIP_LORA_PROGRAM"]
DRIVERS = pathlib.Path(os.environ["CLIP_LORA_DRIVERS"])
TEST_DATA = pathlib.Path(os.environ["CLIP_LORA_TEST_DATA"]) if "CLIP_LORA_TEST_DATA" in os.environ else None

needs_test_data = unittest.skipIf(TEST_DATA is None, "CLIP_LORA_TEST_DATA is unset")


class Driver:
    """One of the programs beside the tests that answer a request with what the library makes of it."""

    def __init__(self, name):
        self.process = subprocess.Popen(
            [DRIVERS / name], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        atexit.register(self.close)

    def ask(self, request, **fields):
        """The answer as a dictionary. Raises RuntimeError with the library's message if there is none."""
        print(json.dumps({"request": request, **fields}, default=str), file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"the driver ended (exit code {self.process.wait()}) at the request {request} {fields}"
            )
        answer = json.loads(line)
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def close(self):
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()


def clip_lora(*arguments):
    """Runs the program; returns what it printed. Raises AssertionError with its messages if it fails."""
    result = subprocess.run([PROGRAM, *map(str, arguments)], capture_output=True, text=True, encoding="utf-8")
    if result.returncode != 0:
        command = " ".join(map(str, arguments))
        raise AssertionError(
            f"clip_lora {command}: exit code {result.returncode}\n{result.stdout}{result.stderr}"
        )
    return result.stdout


def export(checkpoint, to, out, *options, adapter=None):
    """`clip_lora export`."""
    of_adapter = ["--adapter", adapter] if adapter else []
    clip_lora("export", "--checkpoint", checkpoint, *of_adapter, "--to", to, "--out", out, *options)


class PeerTest(unittest.TestCase):
    """A test with a folder of its own."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="clip_lora_peer_")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)

    def assert_close(self, ours, expected, what, tolerance=1e-4):
        """The largest difference relative to the largest expected value. Sums of float32 in another order differ by
        1e-6 or so in a block of CLIP, and several blocks add up."""
        ours, expected = np.asarray(ours, np.float64), np.asarray(expected, np.float64)
        self.assertEqual(ours.shape, expected.shape, what)
        difference = np.abs(ours - expected).max() / np.abs(expected).max()
        self.assertLessEqual(difference, tolerance, f"{what}: relative difference {difference:.2e}")

    def assert_same_bits(self, ours, expected, what):
        ours, expected = np.asarray(ours), np.asarray(expected)
        self.assertEqual((ours.dtype, ours.shape), (expected.dtype, expected.shape), what)
        self.assertEqual(ours.tobytes(), expected.tobytes(), what)


def main():
    unittest.main(verbosity=2)
