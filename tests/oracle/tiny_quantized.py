#!/usr/bin/env python3
"""Makes tests/golden/tiny_quantized/, which tests/unit/test_model_linear.c reads: one linear layer per published form.

    python3 tests/oracle/tiny_quantized.py tests/golden/tiny_quantized

model.safetensors holds the layers (prefix = name of the case) and broken copies of some of them; expected.safetensors holds
what they mean, as float32 [n, k].  Nothing of nibble is used: packing is by Python integers, one per row or column, so that a
stream of b-bit fields is literally sum(code << b * i); the meaning is computed from the codes before they are packed, exactly,
in float64, and rounded once.  Needs numpy only; the same bytes every time.
"""
import json
import os
import sys

import numpy as np

rng = np.random.default_rng(20261125)
layers, meanings = {}, {}  # name -> (dtype name, array); float16 bits and bfloat16 bits are kept as uint16


# ---- numbers ---------------------------------------------------------------------------------------------------------

def f16(x):
    return "F16", np.asarray(x, np.float16).view(np.uint16)


def bf16(x):
    """Truncation is enough here: the values only have to be bfloat16 ones."""
    return "BF16", (np.asarray(x, np.float32).view(np.uint32) >> 16).astype(np.uint16)


def f32(x):
    return "F32", np.asarray(x, np.float32)


def value(stored):
    """Float64 values of what the file holds."""
    dtype, bits = stored
    if dtype == "BF16":
        return (bits.astype(np.uint32) << 16).view(np.float32).astype(np.float64)
    return bits.view(np.float16).astype(np.float64) if dtype == "F16" else bits.astype(np.float64)


def some_scales(shape, keep):
    """Scales of many sizes, both signs, one zero and some that only float16's subnormal range can hold."""
    s = rng.uniform(0.5, 1.0, shape) * 2.0 ** rng.integers(-9, 2, shape) * rng.choice([1, 1, 1, -1], shape)
    flat = s.reshape(-1)
    flat[1], flat[2], flat[3] = 0.0, 3e-6, -1.2e-5
    return keep(s)


def some_codes(n, k, bits):
    codes = rng.integers(0, 1 << bits, (n, k))
    codes[0, :2] = 0, (1 << bits) - 1
    return codes


def meaning(codes, zeros, scales, group_of):
    """codes [n, k], zeros and scales [n, groups] -> float32 [n, k]."""
    return ((codes - zeros[:, group_of]).astype(np.float64) * scales[:, group_of]).astype(np.float32)


# ---- packing ---------------------------------------------------------------------------------------------------------

def stream(fields, bits):
    """The words of one run of fields, lowest bits first, padded with zero bits to whole words."""
    fields = [int(f) for f in fields]
    whole = sum(f << bits * i for i, f in enumerate(fields))
    return np.frombuffer(whole.to_bytes(-(-len(fields) * bits // 32) * 4, "little"), "<i4")


def along_rows(matrix, bits):
    return np.stack([stream(row, bits) for row in matrix])


def along_columns(matrix, bits):
    return np.ascontiguousarray(along_rows(matrix.T, bits).T)


def octets(matrix):
    """AWQ: field i of a word is column (0 2 4 6 1 3 5 7)[i] of its eight."""
    order = [8 * o + c for o in range(matrix.shape[1] // 8) for c in (0, 2, 4, 6, 1, 3, 5, 7)]
    return along_rows(matrix[:, order], 4)


def i32(x):
    return "I32", np.ascontiguousarray(x).astype("<i4")


def i64(x):
    return "I64", np.ascontiguousarray(x).astype("<i8")


# ---- cases -----------------------------------------------------------------------------------------------------------

def groups_of(k, group):
    return np.arange(k) // (group if group > 0 else k)


def awq(name, n, k, group, keep):
    g = groups_of(k, group)
    codes, zeros = some_codes(n, k, 4), rng.integers(0, 16, (n, g[-1] + 1))
    scales = some_scales((g[-1] + 1, n), keep)
    layers[name] = {"qweight": i32(octets(codes.T)), "qzeros": i32(octets(zeros.T)), "scales": scales}
    meanings[name] = f32(meaning(codes, zeros, value(scales).T, g))


def gptq(name, n, k, bits, group, v2=False, sym=False, order=None, keep=f16):
    """order: None for no g_idx, "trivial", or "permuted" as act-order leaves it."""
    g = groups_of(k, group)
    if order == "permuted":
        g = rng.permutation(g)
    codes, count = some_codes(n, k, bits), int(g.max()) + 1
    # v1 stores the zero minus one, so that a zero of nought is outside what the form can say
    zeros = np.full((n, count), 1 << bits - 1) if sym else rng.integers(0 if v2 else 1, 1 << bits, (n, count))
    scales = some_scales((count, n), keep)
    layers[name] = {"qweight": i32(along_columns(codes.T, bits)), "qzeros": i32(along_rows(zeros.T - (not v2), bits)),
                    "scales": scales}
    if order:
        layers[name]["g_idx"] = i32(g)
    meanings[name] = f32(meaning(codes, zeros, value(scales).T, g))


def compressed(name, n, k, bits, group, sym, keep):
    g, half = groups_of(k, group), 1 << bits - 1
    count = int(g[-1]) + 1
    signed = some_codes(n, k, bits) - half
    zeros = np.zeros((n, count), int) if sym else rng.integers(-half, half, (n, count))
    scales = some_scales((n, count), keep)
    layers[name] = {"weight_packed": i32(along_rows(signed + half, bits)), "weight_scale": scales, "weight_shape": i64([n, k])}
    if not sym:
        layers[name]["weight_zero_point"] = i32(along_columns(zeros + half, bits))
    meanings[name] = f32(meaning(signed, zeros, value(scales), g))


def plain(name, n, k, keep):
    layers[name] = {"weight": keep(rng.normal(0, 0.1, (n, k)))}
    meanings[name] = f32(value(layers[name]["weight"]))


def broken(name, source, **changes):
    """A copy of a case with tensors replaced; None removes one."""
    copy = {**layers[source], **changes}
    layers["broken_" + name] = {t: v for t, v in copy.items() if v is not None}


def with_value(stored, at, bits):
    dtype, data = stored
    data = data.copy()
    data.reshape(-1)[at] = bits
    return dtype, data


def make():
    awq("awq_g32", 24, 96, 32, f16)
    layers["awq_g32"]["bias"] = f16(rng.normal(0, 1, 24))
    meanings["awq_g32.bias"] = f32(value(layers["awq_g32"]["bias"]))
    awq("awq_row_bf16", 16, 64, -1, bf16)
    gptq("gptq4_sym", 16, 96, 4, 32, sym=True, order="trivial")
    gptq("gptq4_asym", 24, 64, 4, 32)
    gptq("gptq4_v2", 16, 96, 4, 32, v2=True, order="trivial", keep=bf16)
    gptq("gptq4_row", 16, 64, 4, -1, sym=True, order="trivial")
    gptq("gptq4_act", 16, 96, 4, 32, order="permuted")
    gptq("gptq4_short", 16, 96, 4, 64, order="trivial")  # the last group is half a group
    gptq("gptq8_sym", 16, 96, 8, 32, sym=True, order="trivial")
    gptq("gptq8_asym", 16, 64, 8, 32)
    gptq("gptq8_v2_row", 24, 64, 8, -1, v2=True)
    gptq("gptq8_v2_act", 16, 96, 8, 32, v2=True, order="permuted")
    compressed("ct4_sym", 16, 96, 4, 32, True, f16)
    compressed("ct4_asym", 20, 96, 4, 32, False, bf16)  # 20 zero points end in the middle of a word
    compressed("ct4_channel", 12, 52, 4, -1, True, bf16)  # and so do 52 codes
    compressed("ct8_sym", 16, 96, 8, 32, True, bf16)
    compressed("ct8_asym_channel", 18, 45, 8, -1, False, f16)
    compressed("ct8_f32", 16, 64, 8, 32, True, f32)  # products that do not fit float32 and are rounded
    plain("float_bf16", 8, 24, bf16)
    plain("float_f16", 8, 24, f16)
    plain("float_f32", 8, 24, f32)

    act, a, c = layers["gptq4_act"], layers["awq_g32"], layers["ct4_asym"]
    broken("no_qzeros", "gptq4_act", qzeros=None)
    broken("no_scales", "awq_g32", scales=None)
    broken("short_qweight", "gptq4_act", qweight=i32(act["qweight"][1][:-1]))
    broken("short_qzeros", "awq_g32", qzeros=i32(a["qzeros"][1][:-1]))
    broken("turned_scales", "gptq4_act", scales=(act["scales"][0], np.ascontiguousarray(act["scales"][1].T)))
    broken("g_idx_above", "gptq4_act", g_idx=with_value(act["g_idx"], 95, 3))
    broken("g_idx_below", "gptq4_act", g_idx=with_value(act["g_idx"], 0, -1))
    broken("g_idx_short", "gptq4_act", g_idx=i32(act["g_idx"][1][:-1]))
    broken("g_idx_wide", "gptq4_act", g_idx=i64(act["g_idx"][1]))
    broken("float_qweight", "gptq4_act", qweight=("F32", act["qweight"][1].view(np.float32)))
    broken("whole_scales", "gptq4_act", scales=i32(act["scales"][1]))
    broken("infinite_scale", "gptq4_act", scales=with_value(act["scales"], 5, 0x7C00))
    broken("nan_scale", "ct4_asym", weight_scale=with_value(c["weight_scale"], 59, 0x7FC0))
    broken("nan_bias", "awq_g32", bias=with_value(a["bias"], 23, 0xFE00))
    broken("short_bias", "awq_g32", bias=("F16", a["bias"][1][:-1]))
    broken("no_packed_shape", "ct4_asym", weight_shape=None)
    broken("lying_shape", "ct4_asym", weight_shape=i64([20, 95]))
    broken("narrow_shape", "ct4_asym", weight_shape=i32([20, 96]))
    broken("short_packed", "ct4_asym", weight_packed=i32(c["weight_packed"][1][:, :-1]))
    broken("short_zero_point", "ct4_asym", weight_zero_point=i32(c["weight_zero_point"][1][:-1]))
    broken("no_ct_scale", "ct4_asym", weight_scale=None)
    broken("whole_weight", "float_bf16", weight=i32(np.zeros((8, 24))))


# ---- files -----------------------------------------------------------------------------------------------------------

def write(path, tensors):
    """safetensors: length, JSON header padded to 8 bytes, data in the order of the header."""
    header, body = {"__metadata__": {"format": "pt"}}, b""
    for name, (dtype, data) in sorted(tensors.items()):
        raw = np.ascontiguousarray(data).tobytes()
        header[name] = {"dtype": dtype, "shape": list(data.shape), "data_offsets": [len(body), len(body) + len(raw)]}
        body += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(len(text).to_bytes(8, "little") + text + body)


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: tiny_quantized.py OUT_DIR")
    make()
    os.makedirs(sys.argv[1], exist_ok=True)
    write(os.path.join(sys.argv[1], "model.safetensors"), {f"{p}.{t}": v for p, layer in layers.items() for t, v in layer.items()})
    write(os.path.join(sys.argv[1], "expected.safetensors"), meanings)


if __name__ == "__main__":
    main()
