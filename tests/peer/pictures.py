"""Picture files of every kind that a decoder meets, drawn at random but the same in every run."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

# (width, height): single pixels and lines, around a JPEG's blocks and a byte's bits, strips, and usual ones.
SIZES = [
    (1, 1),
    (1, 9),
    (13, 1),
    (2, 3),
    (7, 5),
    (8, 8),
    (9, 17),
    (16, 15),
    (33, 31),
    (64, 48),
    (101, 75),
    (3, 400),
    (500, 2),
    (257, 129),
]
FEW_SIZES = [(1, 1), (2, 3), (17, 9), (101, 75), (300, 4)]


def noise(rng, size, channels):
    """Smooth waves with noise on them: [height, width, channels] uint8."""
    width, height = size
    y, x = np.mgrid[0:height, 0:width]
    planes = []
    for _ in range(channels):
        wave = np.sin(x * rng.uniform(0.01, 0.5) + rng.uniform(0, 6)) * np.cos(
            y * rng.uniform(0.01, 0.5) + rng.uniform(0, 6)
        )
        planes.append(127.5 + 110 * wave + rng.normal(0, 12, (height, width)))
    return np.stack(planes, -1).clip(0, 255).astype(np.uint8)


def picture(rng, mode, size):
    """A Pillow image of `mode`."""
    if mode == "1":
        return Image.fromarray(noise(rng, size, 1)[..., 0]).point(
            lambda value: 255 if value > 127 else 0, "1"
        )
    if mode == "P":
        image = Image.fromarray(rng.integers(0, 200, size[::-1], np.uint8), "L").convert("P")
        image.putpalette(rng.integers(0, 256, 3 * 200, np.uint8).tobytes())
        return image
    channels = Image.getmodebands(mode)
    pixels = noise(rng, size, channels)
    return Image.fromarray(pixels[..., 0] if channels == 1 else pixels, mode)


def encoded(image, kind, **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


# ---- PNG ----


def png_chunk(name, data):
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(samples, colour_type, extra=(), interlaced=False):
    """A PNG, for what Pillow does not write, of samples [height, width, channels] of 8 or 16 bits, with chunks `extra`
    before the data."""
    height, width, _ = samples.shape
    depth = samples.dtype.itemsize * 8
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, int(interlaced))
    passes = [samples]
    if interlaced:  # Adam7
        starts_and_steps = [
            (0, 0, 8, 8),
            (0, 4, 8, 8),
            (4, 0, 8, 4),
            (0, 2, 4, 4),
            (2, 0, 4, 2),
            (0, 1, 2, 2),
            (1, 0, 2, 1),
        ]
        passes = [samples[top::down, left::right] for top, left, down, right in starts_and_steps]
    rows = b"".join(
        b"\0" + row.astype(">u2" if depth == 16 else np.uint8).tobytes()
        for part in passes
        if part.size
        for row in part
    )
    chunks = [
        png_chunk(b"IHDR", header),
        *(png_chunk(name, data) for name, data in extra),
        png_chunk(b"IDAT", zlib.compress(rows)),
        png_chunk(b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


GREY, RGB, GREY_ALPHA, RGBA = 0, 2, 4, 6  # PNG's colour types
CHANNELS = {GREY: 1, RGB: 3, GREY_ALPHA: 2, RGBA: 4}


def wide_samples(rng, size, channels):
    """16 bits, some of them below 256, which Pillow's 16-bit grey keeps as they are."""
    samples = noise(rng, size, channels).astype(np.uint16) * 257 + rng.integers(
        0, 128, (*size[::-1], channels), np.uint16
    )
    return np.where(rng.random(samples.shape) < 0.2, samples >> 8, samples).astype(np.uint16)


def pngs(rng):
    for size in SIZES:
        for mode in ["1", "L", "LA", "P", "RGB", "RGBA"]:
            yield f"PNG {mode}", encoded(picture(rng, mode, size), "PNG")
    for size in FEW_SIZES:
        palette = picture(rng, "P", size)
        yield "PNG palette, one transparent colour", encoded(palette, "PNG", transparency=7)
        yield "PNG palette, alpha by colour", encoded(palette, "PNG", transparency=bytes(range(0, 200)))
        for bits in (1, 2, 4):
            few = Image.fromarray(rng.integers(0, 2**bits, size[::-1], np.uint8), "L").convert("P")
            few.putpalette(rng.integers(0, 256, 3 * 2**bits, np.uint8).tobytes())
            yield f"PNG palette of {bits} bits", encoded(few, "PNG", bits=bits)
        yield "PNG grey, one transparent value", encoded(picture(rng, "L", size), "PNG", transparency=100)
        yield "PNG RGB, one transparent colour", encoded(
            picture(rng, "RGB", size), "PNG", transparency=(1, 2, 3)
        )
        yield "PNG with gamma and physical size", png(
            noise(rng, size, 3),
            RGB,
            [(b"gAMA", struct.pack(">I", 45455)), (b"pHYs", struct.pack(">IIB", 2835, 5000, 1))],
        )
        for colour_type, channels in CHANNELS.items():
            yield f"PNG of 16 bits, colour type {colour_type}", png(
                wide_samples(rng, size, channels), colour_type
            )
            yield f"PNG interlaced, colour type {colour_type}", png(
                noise(rng, size, channels), colour_type, interlaced=True
            )
        yield "PNG of 16 bits, interlaced", png(wide_samples(rng, size, 3), RGB, interlaced=True)
        yield "PNG of 16 bits, one transparent colour", png(
            wide_samples(rng, size, 3), RGB, [(b"tRNS", struct.pack(">HHH", 1, 2, 3))]
        )


# ---- JPEG ----


def without_adobe_segment(jpeg):
    start = jpeg.index(b"\xff\xee")
    length = struct.unpack(">H", jpeg[start + 2 : start + 4])[0]
    return jpeg[:start] + jpeg[start + 2 + length :]


def with_adobe_transform(jpeg, transform):
    """Adobe's segment says what the components are: 0 as they stand, 1 YCC, 2 YCCK."""
    place = jpeg.index(b"Adobe") + 11
    return jpeg[:place] + bytes([transform]) + jpeg[place + 1 :]


def jpegs(rng):
    for size in SIZES:
        yield "JPEG grey", encoded(picture(rng, "L", size), "JPEG", quality=int(rng.integers(5, 100)))
        for subsampling in ("4:4:4", "4:2:2", "4:2:0"):
            yield f"JPEG {subsampling}", encoded(
                picture(rng, "RGB", size), "JPEG", quality=int(rng.integers(5, 100)), subsampling=subsampling
            )
            yield f"JPEG progressive {subsampling}", encoded(
                picture(rng, "RGB", size),
                "JPEG",
                quality=int(rng.integers(5, 100)),
                subsampling=subsampling,
                progressive=True,
            )
        cmyk = encoded(picture(rng, "CMYK", size), "JPEG", quality=int(rng.integers(30, 100)))
        yield "JPEG CMYK, inverted by Adobe", cmyk
        yield "JPEG YCCK", with_adobe_transform(cmyk, 2)
        yield "JPEG CMYK without Adobe's segment", without_adobe_segment(cmyk)
    for size in FEW_SIZES:
        yield "JPEG progressive grey", encoded(picture(rng, "L", size), "JPEG", progressive=True)
        yield "JPEG progressive CMYK", encoded(picture(rng, "CMYK", size), "JPEG", progressive=True)
        yield "JPEG RGB components", encoded(picture(rng, "RGB", size), "JPEG", keep_rgb=True)
        yield "JPEG with restarts", encoded(picture(rng, "RGB", size), "JPEG", restart_marker_rows=1)
        yield "JPEG with restarts, progressive", encoded(
            picture(rng, "RGB", size), "JPEG", restart_marker_blocks=2, progressive=True
        )
        yield "JPEG with a comment and a profile", encoded(
            picture(rng, "RGB", size), "JPEG", comment=b"x" * 1000, icc_profile=b"p" * 70000
        )


# ---- EXIF ----


def exif_block(orientation, byte_order, value_type="H"):
    """A TIFF of one entry, the orientation (0x0112) as short or long number; byte_order as in struct's formats."""
    head = struct.pack(byte_order + "2sHI", b"II" if byte_order == "<" else b"MM", 42, 8)
    entry = struct.pack(byte_order + "HHI", 0x0112, {"H": 3, "L": 4}[value_type], 1)
    value = struct.pack(byte_order + value_type, orientation).ljust(4, b"\0")
    return b"Exif\0\0" + head + struct.pack(byte_order + "H", 1) + entry + value + bytes(4)


def oriented(rng):
    """Pictures of all eight orientations, and of two that there are not."""
    blocks = {
        "little-endian": lambda orientation: exif_block(orientation, "<"),
        "big-endian": lambda orientation: exif_block(orientation, ">"),
        "long": lambda orientation: exif_block(orientation, ">", "L"),
    }
    for name, block in blocks.items():
        for orientation in range(10):
            exif = block(orientation)
            image = picture(rng, "RGB", (33, 20))
            yield f"JPEG with a {name} orientation", encoded(image, "JPEG", exif=exif)
            yield f"PNG with a {name} orientation", encoded(image, "PNG", exif=exif)
            yield f"WebP with a {name} orientation", encoded(image, "WEBP", exif=exif, lossless=True)
            grey = picture(rng, "L", (16, 24))
            yield f"JPEG grey with a {name} orientation", encoded(grey, "JPEG", exif=exif, progressive=True)
            cmyk = picture(rng, "CMYK", (9, 11))
            yield f"JPEG CMYK with a {name} orientation", encoded(cmyk, "JPEG", exif=exif)


# ---- GIF, WebP, BMP ----


def gifs(rng):
    for size in SIZES:
        yield "GIF", encoded(picture(rng, "P", size), "GIF")
    for size in FEW_SIZES:
        yield "GIF grey", encoded(picture(rng, "L", size), "GIF")
        yield "GIF black and white", encoded(picture(rng, "1", size), "GIF")
        yield "GIF with a transparent colour", encoded(picture(rng, "P", size), "GIF", transparency=5)
        yield "GIF interlaced", encoded(picture(rng, "P", size), "GIF", interlace=1)
        yield "GIF not interlaced", encoded(picture(rng, "P", size), "GIF", interlace=0)
        others = [picture(rng, "P", size) for _ in range(2)]
        yield "GIF animated", encoded(
            picture(rng, "P", size), "GIF", save_all=True, append_images=others, duration=40
        )


def webps(rng):
    for size in SIZES:
        yield "WebP", encoded(picture(rng, "RGB", size), "WEBP", quality=int(rng.integers(5, 100)))
        yield "WebP lossless", encoded(picture(rng, "RGB", size), "WEBP", lossless=True)
    for size in FEW_SIZES:
        yield "WebP with alpha", encoded(picture(rng, "RGBA", size), "WEBP", quality=80)
        yield "WebP lossless with alpha", encoded(
            picture(rng, "RGBA", size), "WEBP", lossless=True, exact=True
        )
        yield "WebP grey", encoded(picture(rng, "L", size), "WEBP")


def bmp(samples, top_down):
    """A BMP of 24 bits, its rows from the top or from the bottom, where Pillow writes the latter only."""
    height, width, _ = samples.shape
    padding = b"\0" * (-3 * width % 4)
    rows = [row[:, ::-1].tobytes() + padding for row in samples]
    data = b"".join(rows if top_down else rows[::-1])
    header = struct.pack(
        "<IiiHHIIiiII", 40, width, -height if top_down else height, 1, 24, 0, len(data), 2835, 2835, 0, 0
    )
    return struct.pack("<2sIHHI", b"BM", 54 + len(data), 0, 0, 54) + header + data


def bmps(rng):
    for size in SIZES:
        for mode in ["1", "L", "P", "RGB", "RGBA"]:
            yield f"BMP {mode}", encoded(picture(rng, mode, size), "BMP")
    for size in FEW_SIZES:
        yield "BMP from the top", bmp(noise(rng, size, 3), top_down=True)
        yield "BMP from the bottom", bmp(noise(rng, size, 3), top_down=False)


def every_picture():
    """(kind, bytes of the file) of each."""
    rng = np.random.default_rng(0)
    for make in (pngs, jpegs, oriented, gifs, webps, bmps):
        yield from make(rng)
