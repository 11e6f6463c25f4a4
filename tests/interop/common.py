"""What the scripts of this folder share: packages or a loud skip, the demo's paths, calling nibble, making checkpoints."""
import importlib
import json
import os
import subprocess
import sys

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
DEMO = os.path.join(ROOT, "tools", "demo")
ORIGINAL = os.path.join(DEMO, "model")
CALIBRATION = os.path.join(DEMO, "calib", "chat.jsonl")
HOLDOUT = os.path.join(DEMO, "eval", "chat_holdout.jsonl")

sys.path.insert(0, os.path.join(ROOT, "tests", "oracle"))  # read_quantized: an unpacker that needs numpy only


def need(*packages):
    """Exit with 77, which the test runner counts as skipped, unless all of these can be imported."""
    for name in packages:
        try:
            importlib.import_module(name)
        except ImportError as why:
            print(f"{os.path.basename(sys.argv[0])} needs the Python package {name} ({why}); NIBBLE_PYTHON chooses a Python that has it")
            sys.exit(77)


def versions():
    import platform

    import numpy
    import torch
    import transformers
    return f"Python {platform.python_version()}, torch {torch.__version__}, transformers {transformers.__version__}, numpy {numpy.__version__}"


def nibble(program, *arguments, json_out=False):
    """Standard output of one call, parsed if asked for; anything but success ends the script with what nibble said."""
    ran = subprocess.run([program, *map(str, arguments)] + (["--json"] if json_out else []), capture_output=True, text=True)
    if ran.returncode != 0:
        sys.exit(f"nibble {' '.join(map(str, arguments))}: exit code {ran.returncode}\n{ran.stdout}{ran.stderr}")
    return json.loads(ran.stdout) if json_out else ran.stdout


def quantize(program, out, flags):
    """The demo model by these flags; methods that calibrate see 32 conversations."""
    data = [] if "rtn" in flags.split() else ["--data", CALIBRATION, "--samples", "32"]
    nibble(program, "quantize", ORIGINAL, "--out", out, "-q", "--no-judge", *flags.split(), *data)


def table(title, rows):
    """Markdown: title and rows are lists of cells, the first column left-aligned and the others right-aligned."""
    cells = [[str(c) for c in row] for row in [title, *rows]]
    width = [max(len(row[i]) for row in cells) for i in range(len(title))]
    rule = ["-" * width[0]] + ["-" * (w - 1) + ":" for w in width[1:]]
    for row in [cells[0], rule, *cells[1:]]:
        print("| " + " | ".join(c.ljust(w) if i == 0 else c.rjust(w) for i, (c, w) in enumerate(zip(row, width))) + " |")
