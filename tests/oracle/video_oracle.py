"""Small videos in several formats, and what PyAV (FFmpeg) and torch read from them: tests/golden/vision_video.json.

    python tests/oracle/video_oracle.py > tests/golden/vision_video.json

Needs av, numpy and torch.  A frame is described by the mean colours of its four quarters.
"""
import base64
import io
import json
import tempfile

import av
import numpy as np
import torch

WIDTH, HEIGHT, FRAMES, RATE, WANTED_FPS = 168, 112, 22, 11, 3


def pictures():
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    for i in range(FRAMES):
        p = np.stack([x + i * 4, 2 * y, 255 - x], -1).clip(0, 255).astype(np.uint8)
        p[4 * i:4 * i + 24, 6 * i:6 * i + 24] = (255 - 9 * i, 40, 9 * i)
        yield p


def encode(kind, codec, pixels, options, container):
    with tempfile.NamedTemporaryFile() as out:
        with av.open(out.name, "w", format=kind, options=container) as c:
            s = c.add_stream(codec, rate=RATE, options=options)
            s.width, s.height, s.pix_fmt, s.bit_rate = WIDTH, HEIGHT, pixels, 60000
            for p in pictures():
                c.mux(s.encode(av.VideoFrame.from_ndarray(p, format="rgb24")))
            c.mux(s.encode(None))
        return open(out.name, "rb").read()


def quarters(p):
    h, w = HEIGHT // 2, WIDTH // 2
    return [[round(float(v), 3) for v in p[y:y + h, x:x + w].reshape(-1, 3).mean(0)] for y in (0, h) for x in (0, w)]


def describe(name, data):
    frames = [f.to_ndarray(format="rgb24") for f in av.open(io.BytesIO(data)).decode(video=0)]
    n = len(frames) // RATE * WANTED_FPS // 2 * 2
    index = torch.linspace(0, len(frames) - 1, n).round().long().tolist()
    return {"name": name, "total": len(frames), "fps": RATE, "wanted_fps": WANTED_FPS, "width": WIDTH, "height": HEIGHT,
            "frames": [quarters(frames[i]) for i in index], "base64": base64.b64encode(data).decode()}


MAKERS = [("h264.mp4", "mp4", "libx264", "yuv420p", {"bf": "2"}, {"movflags": "faststart"}),
          ("fragments.mp4", "mp4", "libx264", "yuv420p", {}, {"movflags": "frag_keyframe+empty_moov"}),
          ("hevc.mov", "mov", "libx265", "yuv420p", {"x265-params": "log-level=none"}, {}),
          ("vp8.webm", "webm", "libvpx", "yuv420p", {"auto-alt-ref": "1", "lag-in-frames": "10"}, {}),
          ("vp9.webm", "webm", "libvpx-vp9", "yuv420p", {"auto-alt-ref": "1", "lag-in-frames": "10"}, {}),
          ("mpeg4.avi", "avi", "mpeg4", "yuv420p", {"bf": "2"}, {})]
print(json.dumps([describe(m[0], encode(*m[1:])) for m in MAKERS]))
