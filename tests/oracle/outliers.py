#!/usr/bin/env python3
"""A copy of a Qwen2-VL checkpoint that computes the same function and has outlier channels, as large models do.

    python3 tests/oracle/outliers.py tools/demo/model OUT [--channels 6] [--power 5]

A few channels of each norm before attention and before the MLP are multiplied by 2^power and the columns that read them divided by it;
the same for rows of up_proj and columns of down_proj.  Powers of two are exact in bf16 and f16, so the outputs are the same to the bit
of a float32 product, while activations and the columns of weights now span 2^power: what a quantizer with one range for a group of inputs
meets in practice.  Needs safetensors, torch and numpy.
"""
import argparse
import pathlib
import random
import shutil

from safetensors import safe_open
from safetensors.torch import save_file


def main():
    a = argparse.ArgumentParser()
    a.add_argument("model", type=pathlib.Path)
    a.add_argument("out", type=pathlib.Path)
    a.add_argument("--channels", type=int, default=6)
    a.add_argument("--power", type=int, default=5)
    o = a.parse_args()
    shutil.copytree(o.model, o.out, dirs_exist_ok=True)
    rng, factor = random.Random(7), float(2 ** o.power)
    with safe_open(o.model / "model.safetensors", "pt") as f:
        meta, t = f.metadata(), {name: f.get_tensor(name) for name in f.keys()}
    for name in [n for n in t if n.endswith("layernorm.weight") and "visual" not in n]:
        layer = name.rsplit(".", 2)[0]
        readers = ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"] if "input" in name else ["mlp.gate_proj", "mlp.up_proj"]
        for c in rng.sample(range(t[name].numel()), o.channels):
            t[name][c] *= factor
            for r in readers:
                t[f"{layer}.{r}.weight"][:, c] /= factor
        if "input" in name:
            continue
        for c in rng.sample(range(t[f"{layer}.mlp.up_proj.weight"].shape[0]), o.channels):
            t[f"{layer}.mlp.up_proj.weight"][c] *= factor
            t[f"{layer}.mlp.down_proj.weight"][:, c] /= factor
    save_file(t, o.out / "model.safetensors", metadata=meta)


if __name__ == "__main__":
    main()
