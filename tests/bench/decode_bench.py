"""JPEGs of 500 x 375 pixels to normalised tensors [3, 224, 224]: the library beside stock Pillow and torchvision, in
turns, the files in the page cache. First checks that both make the same pixels and the same tensors. Prints pictures
per second and thread, the fastest of several runs of each.

    CLIP_LORA_PROGRAM=build/release/bin/clip_lora CLIP_LORA_DRIVERS=build/release/tests \\
      .deps/venv/bin/python tests/bench/decode_bench.py [--images DIR] [--threads 1 2] [--runs 5]

--images takes the pictures of a folder, resized to 500 x 375; without it they are drawn: noise with the spectrum of
photographs.
"""

import argparse
import concurrent.futures
import multiprocessing
import pathlib
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "peer"))

import peers  # noqa: E402  (after the path)

import numpy as np  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from torchvision.transforms import (  # noqa: E402
    CenterCrop,
    Compose,
    InterpolationMode,
    Normalize,
    Resize,
    ToTensor,
)

SIZE = (500, 375)
QUALITY = 90
OPENAI = {
    "size_px": 224,
    "resize_px": 224,
    "resize_mode": "shortest",
    "interpolation": "bicubic",
    "fill_color": 0,
}
TO_VIEW = Compose([Resize(224, interpolation=InterpolationMode.BICUBIC), CenterCrop(224)])
TO_TENSOR = Compose(
    [
        ToTensor(),
        Normalize((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
    ]
)


def drawn_picture(rng):
    """Noise of all scales, weaker the finer it is, as in photographs: amplitude over frequency to 0.8."""
    width, height = SIZE
    picture = np.full((height, width, 3), 127.0)
    for cells in (2, 4, 8, 16, 32, 64, 128, 256):
        noise = rng.normal(0, 60 / cells**0.8, (cells * 3 // 4 + 1, cells, 3)).astype(np.float32)
        for channel in range(3):
            picture[..., channel] += Image.fromarray(noise[..., channel]).resize(SIZE, Image.Resampling.BICUBIC)
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


def pictures_of(folder, count):
    """Drawn ones, or those of `folder`, spread over it."""
    if folder is None:
        rng = np.random.default_rng(0)
        return [drawn_picture(rng) for _ in range(count)]
    suffixes = {".jpg", ".jpeg", ".png"}
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in suffixes)
    if not files:
        sys.exit(f"{folder} has no pictures (expected .jpg, .jpeg or .png)")
    return [
        Image.open(file).convert("RGB").resize(SIZE, Image.Resampling.LANCZOS)
        for file in files[:: max(1, len(files) // count)][:count]
    ]


def view_in_python(path):
    return TO_VIEW(Image.open(path).convert("RGB"))


def tensor_in_python(path):
    return TO_TENSOR(view_in_python(path))


def make_tensor_in_python(path):
    """The same for a process of a pool: the tensor is not sent back, which would cost as much again."""
    tensor_in_python(path)


def check_equal(driver, paths, folder):
    """The largest difference of the tensors; exits if a view has another pixel, or a tensor is off by over 1e-6."""
    out = folder / "values"
    largest = 0.0
    for path in paths:
        driver.ask("pixels", image=path, out=out, preprocessing=OPENAI, exif=False)
        if np.fromfile(out, np.uint8).tobytes() != view_in_python(path).tobytes():
            sys.exit(f"{path}: the views have different pixels")
        driver.ask("tensor", image=path, out=out)
        difference = np.abs(np.fromfile(out, np.float32) - tensor_in_python(path).numpy().ravel()).max()
        largest = max(largest, float(difference))
    if largest > 1e-6:
        sys.exit(f"the tensors differ by {largest}")
    return largest


def seconds_of(action):
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def python_ways(threads):
    """(name, map over paths) of each way to use that many threads in Python."""
    if threads == 1:
        return [("loop", lambda paths: [tensor_in_python(path) for path in paths])]
    pool = concurrent.futures.ThreadPoolExecutor(threads)
    processes = multiprocessing.get_context("fork").Pool(threads)
    return [
        ("threads", lambda paths: list(pool.map(tensor_in_python, paths))),
        ("processes", lambda paths: processes.map(make_tensor_in_python, paths, chunksize=4)),
    ]


def compare(driver, paths, threads, runs):
    """A row of the table: threads, ours, Python's fastest way and its speed, ratio."""
    ways = python_ways(threads)
    ours, theirs = [], {name: [] for name, _ in ways}
    for _ in range(runs):
        ours.append(driver.ask("time_tensors", images=[str(path) for path in paths], threads=threads)["seconds"])
        for name, convert in ways:
            theirs[name].append(seconds_of(lambda convert=convert: convert(paths)))
    way = min(theirs, key=lambda name: min(theirs[name]))
    speeds = [len(paths) / min(seconds) / threads for seconds in (ours, theirs[way])]
    return threads, speeds[0], way, speeds[1], speeds[0] / speeds[1]


def main():
    parser = argparse.ArgumentParser(description="Compares how fast JPEGs become tensors.")
    parser.add_argument("--images", type=pathlib.Path, help="folder of pictures to use, whatever their size")
    parser.add_argument("--count", type=int, default=200, help="of pictures")
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--runs", type=int, default=5, help="of each, the fastest counts")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # a picture is one thread's work, here and there
    with tempfile.TemporaryDirectory(prefix="clip_lora_decoding_") as folder:
        paths = []
        for number, picture in enumerate(pictures_of(arguments.images, arguments.count)):
            paths.append(pathlib.Path(folder) / f"{number}.jpg")
            picture.save(paths[-1], quality=QUALITY)
        kilobytes = sum(path.stat().st_size for path in paths) / len(paths) / 1000
        driver = peers.Driver("pictures_driver")
        difference = check_equal(driver, paths, pathlib.Path(folder))
        print(f"{len(paths)} JPEGs of {SIZE[0]} x {SIZE[1]} pixels, {kilobytes:.0f} kB on average")
        print(f"views equal in every byte; largest difference of the tensors: {difference:g}")
        print("pictures per second and thread:")
        print(f"{'threads':>8}{'ours':>10}{'Pillow + torchvision':>28}{'ratio':>8}")
        for threads in arguments.threads:
            threads, ours, way, theirs, ratio = compare(driver, paths, threads, arguments.runs)
            print(f"{threads:>8}{ours:>10.0f}{f'{theirs:.0f} ({way})':>28}{ratio:>8.2f}", flush=True)


if __name__ == "__main__":
    main()
