#!/usr/bin/env python3
"""Makes tests/golden/vision_processor.json and vision_formats.json, which tests/unit/test_vision_*.c compare with.

The oracle is transformers' slow Qwen2VLImageProcessor (4.57.1) and Pillow (12.3).  Usage:

    python3 vision_oracle.py DATA_DIR OUT_DIR        DATA_DIR: the shared test data (its images/ is read)

vision_processor.json: for every decodable picture of the test data, and for pictures made by a small generator that the
C test repeats, the decoded and resized pixels as hashes, the patch grid and a few of the values.
vision_formats.json: small encoded pictures of every kind, as base64, with the RGB that Pillow makes of them.
"""
import base64
import hashlib
import io
import json
import os
import struct
import sys
import zlib

import numpy as np
from PIL import Image
from transformers import Qwen2VLImageProcessor
from transformers.models.qwen2_vl.image_processing_qwen2_vl import smart_resize

LIMITS = [(3136, 12845056), (3136, 1003520), (200704, 1003520)]
SIZES = [  # width, height
    (1, 1), (2, 9), (5, 8), (13, 7), (14, 100), (27, 27), (28, 28), (29, 31), (31, 639), (42, 70), (56, 40), (56, 56),
    (57, 55), (64, 64), (70, 42), (83, 85), (100, 75), (97, 301), (111, 37), (128, 128), (140, 140), (200, 4), (199, 2),
    (4, 800), (224, 224), (225, 223), (252, 196), (300, 168), (320, 240), (333, 500), (336, 336), (360, 420), (383, 17),
    (448, 98), (500, 375), (512, 512), (640, 480), (701, 467), (799, 601), (1000, 30), (1024, 768), (30, 1400),
]


def generated(width, height):
    """s = 12345; for y, x, channel: s = s * 1664525 + 1013904223 mod 2^32, value = s >> 24."""
    n = width * height * 3
    state = 12345
    out = bytearray(n)
    for i in range(n):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        out[i] = state >> 24
    return Image.frombytes("RGB", (width, height), bytes(out))


def sha(data):
    return hashlib.sha256(data).hexdigest()


def processed(image, min_pixels, max_pixels):
    # channels_last is said outright: the class takes a picture of height 1 or 3 for a channels-first one
    processor = Qwen2VLImageProcessor(min_pixels=min_pixels, max_pixels=max_pixels)
    got = processor(images=[image], input_data_format="channels_last", return_tensors="np")
    values, grid = got["pixel_values"], [int(v) for v in got["image_grid_thw"][0]]
    height, width = smart_resize(image.height, image.width, 28, min_pixels, max_pixels)
    assert [1, height // 14, width // 14] == grid
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    rows, columns = values.shape
    at = [(i * 7919 % rows, i * 613 % columns) for i in range(1, 13)] + [(rows - 1, columns - 1)]
    return {
        "min_pixels": min_pixels, "max_pixels": max_pixels, "grid": grid, "resized_sha256": sha(resized.tobytes()),
        "values_sha256": sha(np.ascontiguousarray(values, dtype="<f4").tobytes()),
        "sum": float(values.astype(np.float64).sum()),
        "abs_sum": float(np.abs(values.astype(np.float64)).sum()),
        "values": [[int(r), int(c), float(values[r, c])] for r, c in at],
    }


def processor_fixture(data):
    pictures, synthetic = [], []
    root = os.path.join(data, "images")
    for folder, _, files in sorted(os.walk(root)):
        for name in sorted(files):
            path = os.path.join(folder, name)
            try:
                image = Image.open(path).convert("RGB")
            except Exception:
                continue
            pictures.append({
                "file": os.path.relpath(path, data), "width": image.width, "height": image.height,
                "rgb_sha256": sha(image.tobytes()), "runs": [processed(image, *limits) for limits in LIMITS[:2]],
            })
    for i, (width, height) in enumerate(SIZES):
        image = generated(width, height)
        synthetic.append({"width": width, "height": height, "runs": [processed(image, *LIMITS[i % 3])]})
    return {"pictures": pictures, "synthetic": synthetic}


# ---- small files of every kind ----

def chunk(kind, body):
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def pack_row(samples, depth):
    if depth == 16:
        return b"".join(struct.pack(">H", s) for s in samples)
    bits = "".join(format(s, "0%db" % depth) for s in samples)
    bits += "0" * (-len(bits) % 8)
    return bytes(int(bits[i:i + 8], 2) for i in range(0, len(bits), 8))


def png(width, height, colour, depth, interlaced, palette=None, extra=b""):
    channels = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour]
    state = 977 * colour + depth
    top = len(palette) // 3 if palette and not extra.startswith(b"past") else 1 << depth
    pixels = []
    for _ in range(height):
        row = []
        for _ in range(width):
            sample = []
            for _ in range(channels):
                state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
                value = (state >> 12) % top
                if depth == 16 and colour == 0 and state & 0x100000:
                    value &= 0x1FF  # values around 255, where clipping starts
                sample.append(value)
            row.append(sample)
        pixels.append(row)
    passes = [(0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2)]
    raw = b""
    for x0, y0, dx, dy in passes if interlaced else [(0, 0, 1, 1)]:
        for y in range(y0, height, dy):
            line = [s for x in range(x0, width, dx) for s in pixels[y][x]]
            if line:
                raw += b"\0" + pack_row(line, depth)
    out = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced))
    if palette:
        out += chunk(b"PLTE", palette)
    if extra and not extra.startswith(b"past"):
        out += chunk(b"tRNS", extra)
    return out + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def gif(frame, canvas, indices, palette, transparent=None, interlaced=False, local=False, short=b""):
    """Codes of 9 bits at most and a clear code before the table grows: a writer too simple to be wrong."""
    left, top, width, height = frame
    table = palette + b"\0" * (768 - len(palette))
    out = b"GIF89a" + struct.pack("<HHBBB", *canvas, 0 if local else 0xF7, 0, 0) + (b"" if local else table)
    if transparent is not None:
        out += b"!\xf9\x04\x01\0\0" + bytes([transparent]) + b"\0"
    out += b"!\xfe\x05hello\0"
    out += b"," + struct.pack("<HHHHB", left, top, width, height, (0x40 if interlaced else 0) | (0x87 if local else 0x82 if short else 0))
    out += (table if local else short) + b"\x08"
    order = range(height)
    if interlaced:
        order = [*range(0, height, 8), *range(4, height, 8), *range(2, height, 4), *range(1, height, 2)]
    stream = [v for y in order for v in indices[y * width:(y + 1) * width]]
    bits, codes = "", [256]
    for i, v in enumerate(stream):
        codes.append(v)
        if i % 100 == 99:
            codes.append(256)
    for code in codes + [257]:
        bits = format(code, "09b") + bits
    bits = "0" * (-len(bits) % 8) + bits
    data = int(bits, 2).to_bytes(len(bits) // 8, "little")
    for i in range(0, len(data), 255):
        out += bytes([len(data[i:i + 255])]) + data[i:i + 255]
    return out + b"\0;"


def bmp(width, height, bits, palette=b"", compression=0, masks=b"", top_down=False, header=40, palette_count=0):
    stride = (width * bits + 31) // 32 * 4
    state, rows = 4242 + bits, b""
    for _ in range(height):
        line = b""
        while len(line) < stride:
            state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
            line += bytes([state >> 24])
        rows += line
    body = struct.pack("<IiiHHIIiiII", header, width, -height if top_down else height, 1, bits, compression, len(rows), 0, 0,
                       palette_count, 0)
    body += masks + b"\0" * (header - 40 - len(masks) if header > 40 else 0)
    offset = 14 + len(body) + len(palette)
    return b"BM" + struct.pack("<IHHI", offset + len(rows), 0, 0, offset) + body + palette + rows


def saved(image, kind, **options):
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def on_white(image):
    """What qwen-vl-utils (0.0.9 and later) does to mode RGBA, and to no other."""
    if image.mode != "RGBA":
        return image.convert("RGB")
    white = Image.new("RGB", image.size, (255, 255, 255))
    white.paste(image, mask=image.split()[3])
    return white


def smooth(width, height, mode="RGB"):
    y, x = np.mgrid[0:height, 0:width]
    planes = [127 + 120 * np.sin(x / (3.0 + c) + y / (5.0 - c)) for c in range(len(Image.new(mode, (1, 1)).getbands()))]
    array = np.stack(planes, -1).astype(np.uint8)
    return Image.frombytes(mode, (width, height), array.tobytes())


def formats_fixture():
    files = {}
    colours = bytes((i * 37 + c * 91) % 256 for i in range(256) for c in range(3))
    for interlaced in (0, 1):
        mark = "-interlaced" if interlaced else ""
        for colour, depths in ((0, (1, 2, 4, 8, 16)), (2, (8, 16)), (3, (1, 2, 4, 8)), (4, (8, 16)), (6, (8, 16))):
            for depth in depths:
                palette = colours[:3 << depth] if colour == 3 else None
                files["png-%d-%d%s" % (colour, depth, mark)] = png(19, 11, colour, depth, interlaced, palette)
    files["png-palette-short"] = png(19, 11, 3, 8, 0, colours[:30], b"past the end")
    files["png-palette-trns"] = png(19, 11, 3, 4, 0, colours[:48], bytes([0, 128, 255]))
    files["png-rgb-trns"] = png(19, 11, 2, 8, 0, None, b"\0\1\0\2\0\3")
    files["png-grey-trns"] = png(19, 11, 0, 8, 0, None, b"\0\7")
    files["png-1x1"] = png(1, 1, 2, 8, 0)
    files["png-1x1-interlaced"] = png(1, 1, 6, 8, 1)
    files["png-filters"] = saved(smooth(61, 40), "PNG")
    files["png-trailing"] = png(5, 4, 2, 8, 0) + b"PK\3\4 more"
    for name, options in (("420", {"subsampling": 2}), ("422", {"subsampling": 1}), ("444", {"subsampling": 0}),
                          ("progressive", {"progressive": True}), ("optimized", {"optimize": True, "quality": 30}),
                          ("restart", {"restart_marker_blocks": 2}), ("rgb", {"keep_rgb": True})):
        files["jpeg-" + name] = saved(smooth(61, 43), "JPEG", **options)
    files["jpeg-grey"] = saved(smooth(61, 43, "L"), "JPEG")
    files["jpeg-cmyk"] = saved(smooth(37, 29, "CMYK"), "JPEG")
    files["jpeg-cmyk-no-adobe"] = strip_app14(files["jpeg-cmyk"])
    files["jpeg-ycck"] = files["jpeg-cmyk"].replace(b"Adobe\0d\0\0\0\0\0", b"Adobe\0d\0\0\0\0\2")
    files["jpeg-1x1"] = saved(smooth(1, 1), "JPEG")
    files["jpeg-trailing"] = saved(smooth(9, 9), "JPEG") + b"PK\3\4 more"
    files["webp-lossy"] = saved(smooth(61, 43), "WEBP")
    files["webp-lossless"] = saved(smooth(61, 43), "WEBP", lossless=True)
    files["webp-lossless-alpha"] = saved(smooth(61, 43, "RGBA"), "WEBP", lossless=True, exact=True)
    files["webp-lossy-alpha"] = saved(smooth(61, 43, "RGBA"), "WEBP")
    w, h = 21, 13
    indices = [(x * 5 + y * 11) % 256 for y in range(h) for x in range(w)]
    files["gif-global"] = gif((0, 0, w, h), (w, h), indices, colours)
    files["gif-local"] = gif((0, 0, w, h), (w, h), indices, colours, local=True)
    files["gif-interlaced"] = gif((0, 0, w, h), (w, h), indices, colours, interlaced=True)
    files["gif-transparent"] = gif((0, 0, w, h), (w, h), indices, colours, transparent=33)
    files["gif-offset"] = gif((3, 2, w, h), (40, 30), indices, colours)
    files["gif-offset-transparent"] = gif((3, 2, w, h), (40, 30), indices, colours, transparent=7)
    files["gif-beyond-canvas"] = gif((10, 20, w, h), (15, 15), indices, colours)
    files["gif-short-palette"] = gif((0, 0, w, h), (w, h), indices, colours, short=colours[60:84])
    files["gif-no-palette"] = gif((0, 0, w, h), (w, h), indices, b"").replace(b"\xf7\0\0" + b"\0" * 768, b"\0\0\0", 1)
    files["gif-animated"] = saved(smooth(40, 30).quantize(64), "GIF", save_all=True,
                                  append_images=[smooth(40, 30).rotate(90).quantize(64)])
    files["gif-two-colours"] = saved(smooth(40, 30, "L").convert("1"), "GIF")
    files["gif-long-strings"] = saved(Image.new("P", (300, 200), 3), "GIF")
    four = b"".join(colours[3 * i:3 * i + 3] + b"\0" for i in range(256))
    files["bmp-1"] = bmp(19, 7, 1, four[:8])
    files["bmp-4"] = bmp(19, 7, 4, four[:64])
    files["bmp-8"] = bmp(19, 7, 8, four)
    files["bmp-24"] = bmp(19, 7, 24)
    files["bmp-24-top-down"] = bmp(19, 7, 24, top_down=True)
    files["bmp-32"] = bmp(19, 7, 32)
    files["bmp-32-alpha"] = bmp(19, 7, 32, compression=3, header=108,
                                masks=struct.pack("<IIII", 0xFF0000, 0xFF00, 0xFF, 0xFF000000))
    files["bmp-32-masks"] = bmp(19, 7, 32, compression=3, header=108, masks=struct.pack("<IIII", 0xFF000000, 0xFF0000, 0xFF00, 0))
    files["bmp-saved"] = saved(smooth(17, 9), "BMP")
    out = []
    for name, data in files.items():
        image = Image.open(io.BytesIO(data))
        image.load()
        out.append({
            "name": name, "mode": image.mode, "width": image.width, "height": image.height,
            "rgb_sha256": sha(image.convert("RGB").tobytes()), "white_sha256": sha(on_white(image).tobytes()),
            "base64": base64.b64encode(data).decode(),
        })
    return out


def strip_app14(data):
    at = data.index(b"\xff\xee")
    return data[:at] + data[at + 2 + struct.unpack(">H", data[at + 2:at + 4])[0]:]


def main():
    data, out = sys.argv[1:]
    for name, tree in (("vision_formats", formats_fixture()), ("vision_processor", processor_fixture(data))):
        with open(os.path.join(out, name + ".json"), "w") as f:
            if isinstance(tree, list):
                f.write("[\n" + ",\n".join(json.dumps(row) for row in tree) + "\n]\n")
            else:
                f.write("{" + ",\n".join(json.dumps(key) + ": [\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]"
                                         for key, rows in tree.items()) + "}\n")


if __name__ == "__main__":
    main()
