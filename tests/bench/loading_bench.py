"""Loads a CLIP of ViT-L/14's size out of each container, to float32 tensors in memory: the library beside
torch.load and safetensors, each in a process of its own, in turns, the files in the page cache. Prints the fastest
time and the peak memory of each.

    CLIP_LORA_PROGRAM=build/release/bin/clip_lora CLIP_LORA_DRIVERS=build/release/tests \\
      .deps/venv/bin/python tests/bench/loading_bench.py [--dtype fp16|fp32] [--runs 5]
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "peer"))

import peers  # noqa: E402  (after the path)

VIT_L_14 = {
    "vision_width": 1024,
    "vision_layers": 24,
    "patch": 14,
    "resolution": 224,
    "text_width": 768,
    "text_layers": 12,
    "embedding": 768,
}
TORCH_LOAD = {"state dict", "nested state dict", "OpenCLIP"}


def memory_mb(field, process="self"):
    """A field of /proc/<process>/status: VmRSS now, VmHWM at most."""
    for line in pathlib.Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/{process}/status has no {field}")


def load_in_python(form, path):
    """What a user of the container's own library writes."""
    import safetensors.torch
    import torch

    start_mb = memory_mb("VmRSS")
    start = time.perf_counter()
    if form == "TorchScript archive":
        tensors = torch.jit.load(path, map_location="cpu").state_dict()
    elif form in TORCH_LOAD:
        file = path / "open_clip_pytorch_model.bin" if path.is_dir() else path
        tensors = torch.load(file, map_location="cpu", weights_only=True)
        tensors = tensors.get("state_dict", tensors)
    else:
        files = sorted(path.glob("*.safetensors")) if path.is_dir() else [path]
        tensors = {
            name: tensor for file in files for name, tensor in safetensors.torch.load_file(file).items()
        }
    no_weights = {"input_resolution", "context_length", "vocab_size"}
    tensors = {name: tensor.float() for name, tensor in tensors.items() if name not in no_weights}
    checksum = sum(tensor.sum(dtype=torch.float64).item() for tensor in tensors.values())
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "checksum": checksum, "start_mb": start_mb, "peak_mb": memory_mb("VmHWM")}


def measure_python(form, path):
    command = [sys.executable, __file__, "--load", form, path]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def measure_ours(path):
    driver = peers.Driver("models_driver")
    driver.ask("ready")
    start_mb = memory_mb("VmRSS", driver.process.pid)
    answer = driver.ask("time_loading", checkpoint=path)
    answer |= {"start_mb": start_mb, "peak_mb": memory_mb("VmHWM", driver.process.pid)}
    driver.close()
    return answer


def warm(path):
    for file in [path] if path.is_file() else path.iterdir():
        file.read_bytes()


def compare(form, path, runs):
    warm(path)
    ours, theirs = [], []
    for _ in range(runs):
        ours.append(measure_ours(path))
        theirs.append(measure_python(form, path))
    if abs(ours[0]["checksum"] - theirs[0]["checksum"]) > 1e-6 * abs(theirs[0]["checksum"]) + 1e-3:
        raise RuntimeError(
            f"{form}: the sums of all weights are {ours[0]['checksum']} and {theirs[0]['checksum']}"
        )
    row = [form]
    for measured in (ours, theirs):
        best = min(measured, key=lambda run: run["seconds"])
        row += [f"{best['seconds']:.2f}", f"{best['peak_mb']:,.0f}", f"{best['start_mb']:,.0f}"]
    return row


def write_files(folder, dtype):
    import containers
    import scripted_clip
    import torch

    torch.manual_seed(0)
    clip = scripted_clip.Clip(**VIT_L_14)
    megabytes = sum(parameter.numel() for parameter in clip.parameters()) * 4 / 2**20
    print(f"ViT-L/14 in {dtype}: {megabytes:,.0f} MiB of float32 weights")
    return containers.write_all(clip, folder, {"fp16": torch.float16, "fp32": torch.float32}[dtype])


def main():
    parser = argparse.ArgumentParser(
        description="Compares how fast and in how much memory checkpoints are loaded."
    )
    parser.add_argument("--dtype", choices=["fp16", "fp32"], default="fp16", help="of the stored weights")
    parser.add_argument("--runs", type=int, default=5, help="of each, the fastest counts")
    parser.add_argument("--load", nargs=2, metavar=("FORM", "PATH"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.load:
        print(json.dumps(load_in_python(arguments.load[0], pathlib.Path(arguments.load[1]))))
        return
    with tempfile.TemporaryDirectory(prefix="clip_lora_loading_") as folder:
        paths = write_files(pathlib.Path(folder) / "forms", arguments.dtype)
        line = "{:<22}{:>8}{:>12}{:>12}   {:>8}{:>12}{:>12}"
        print(line.format("", "ours, s", "peak, MiB", "at start", "Python, s", "peak, MiB", "at start"))
        for form, path in paths.items():
            print(line.format(*compare(form, path, arguments.runs)), flush=True)


if __name__ == "__main__":
    main()
