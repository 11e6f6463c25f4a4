#!/usr/bin/env python3
"""Read a quantized checkpoint with nothing of nibble's: an own safetensors reader, an own unpacking, numpy only.

    read_quantized.py CHECKPOINT > hashes.tsv

prints one line for each quantized linear, sorted by name:

    model.layers.0.mlp.down_proj <tab> n <tab> k <tab> hash

where hash is that of the dequantized float32 matrix [n, k] in row-major order:

    sum over i of (bits(w[i]) + 1) * splitmix64(i)   modulo 2^64

(a code minus a zero times a float16 scale is exact in float32, so two right readers agree in every bit).  Formats: AWQ GEMM;
GPTQ v1 and v2 with 4 or 8 bits, any g_idx.  Exits 1 with a reason when the directory breaks a rule that loaders rely on.
"""
import json
import os
import re
import sys

import numpy as np

DTYPES = {"F16": np.float16, "F32": np.float32, "I32": np.int32, "BF16": np.uint16, "I64": np.int64, "U8": np.uint8}


def fail(text):
    sys.exit(f"read_quantized: {text}")


def read_file(path):
    """All tensors of one safetensors file, by name."""
    with open(path, "rb") as f:
        data = f.read()
    length = int.from_bytes(data[:8], "little")
    if length % 8:
        fail(f"{path}: the header's length {length} is not a multiple of 8")
    header = json.loads(data[8:8 + length])
    if header.pop("__metadata__", {}).get("format") != "pt":
        fail(f"{path}: __metadata__ lacks format pt")
    body, end, tensors = memoryview(data)[8 + length:], 0, {}
    for name, t in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        first, last = t["data_offsets"]
        if first != end:
            fail(f"{path}: {name} starts at {first}, expected {end}")
        end = last
        tensors[name] = np.frombuffer(body[first:last], DTYPES[t["dtype"]]).reshape(t["shape"]), t["dtype"]
    if end != len(body):
        fail(f"{path}: {len(body) - end} bytes after the last tensor")
    return tensors


def read_all(directory):
    index = os.path.join(directory, "model.safetensors.index.json")
    if not os.path.exists(index):
        return read_file(os.path.join(directory, "model.safetensors"))
    with open(index) as f:
        index = json.load(f)
    tensors = {}
    for name in sorted(set(index["weight_map"].values())):
        part = read_file(os.path.join(directory, name))
        for tensor in part:
            if index["weight_map"].get(tensor) != name:
                fail(f"{tensor} is in {name}, the index says {index['weight_map'].get(tensor)}")
        tensors.update(part)
    if set(tensors) != set(index["weight_map"]):
        fail("the index names tensors that no shard holds")
    total = sum(t.nbytes for t, _ in tensors.values())
    if index["metadata"]["total_size"] != total:
        fail(f"total_size is {index['metadata']['total_size']}, the tensors have {total} bytes")
    return tensors


def fields(words, bits):
    """[..., w] int32 -> [..., w * 32 / bits], lowest bits first."""
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    spread = words.astype(np.uint32)[..., None] >> shifts & np.uint32(2 ** bits - 1)
    return spread.reshape(*words.shape[:-1], -1).astype(np.int64)


def unpack_awq(t, bits, group):
    """qweight [k, n/8], qzeros [groups, n/8]: field i of a word is column 0 2 4 6 1 3 5 7 [i] of its octet."""
    order = np.argsort([0, 2, 4, 6, 1, 3, 5, 7])

    def columns(words):
        f = fields(words, bits)
        return f.reshape(f.shape[0], -1, 8)[:, :, order].reshape(f.shape)

    codes, zeros = columns(t["qweight"]), columns(t["qzeros"])  # [k, n], [groups, n]
    return codes, zeros, np.arange(codes.shape[0]) // (group if group > 0 else codes.shape[0])


def unpack_gptq(t, bits, group, v2):
    """qweight [k*bits/32, n] along k; qzeros [groups, n*bits/32] along n, one less than the zero in v1."""
    codes = fields(np.ascontiguousarray(t["qweight"].T), bits).T
    zeros = fields(t["qzeros"], bits)
    if not v2:
        zeros = zeros + 1 & 2 ** bits - 1
    return codes, zeros, t["g_idx"].astype(np.int64)


def dequantize(t, q):
    awq, bits = q["quant_method"] == "awq", q["bits"]
    if awq:
        codes, zeros, g = unpack_awq(t, bits, q["group_size"])
    else:
        codes, zeros, g = unpack_gptq(t, bits, q["group_size"], q.get("checkpoint_format") == "gptq_v2")
        trivial = np.arange(len(g)) // (q["group_size"] if q["group_size"] > 0 else len(g))
        if not q["desc_act"] and not np.array_equal(g, trivial):
            fail("desc_act is false but g_idx permutes")
        if q["sym"] and not (zeros == 2 ** (bits - 1)).all():
            fail("sym is true but a zero is not in the middle")
    scales = t["scales"].astype(np.float32)
    if not np.isfinite(scales).all():
        fail("a scale is not finite")
    w = (codes - zeros[g]).astype(np.float32) * scales[g]  # [k, n]
    return np.ascontiguousarray(w.T)


def splitmix64(i):
    with np.errstate(over="ignore"):
        z = (i + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
        z = (z ^ z >> np.uint64(30)) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ z >> np.uint64(27)) * np.uint64(0x94D049BB133111EB)
        return z ^ z >> np.uint64(31)


def hash_of(w):
    bits = w.reshape(-1).view(np.uint32).astype(np.uint64)
    with np.errstate(over="ignore"):
        return int(((bits + np.uint64(1)) * splitmix64(np.arange(len(bits), dtype=np.uint64))).sum(dtype=np.uint64))


def main():
    if len(sys.argv) != 2:
        fail("give the directory of a checkpoint")
    with open(os.path.join(sys.argv[1], "config.json")) as f:
        config = json.load(f)
    q = config["quantization_config"]
    tensors = read_all(sys.argv[1])
    names = sorted(n[:-len(".qweight")] for n in tensors if n.endswith(".qweight"))
    if len(names) != 7 * config["num_hidden_layers"]:
        fail(f"{len(names)} quantized linears, expected {7 * config['num_hidden_layers']}")
    if config.get("tie_word_embeddings") and "lm_head.weight" in tensors:
        fail("a tied head is stored")
    for name in names:
        if name + ".weight" in tensors:
            fail(f"{name} is there twice")
        if (name + ".bias" in tensors) != bool(re.search(r"\.[qkv]_proj$", name)):
            fail(f"{name} has the wrong bias")
        part = {k: tensors[f"{name}.{k}"][0] for k in ("qweight", "qzeros", "scales", "g_idx") if f"{name}.{k}" in tensors}
        if tensors[name + ".scales"][1] != "F16":
            fail(f"{name}.scales is {tensors[name + '.scales'][1]}")
        w = dequantize(part, q)
        print(f"{name}\t{w.shape[0]}\t{w.shape[1]}\t{hash_of(w):016x}")


if __name__ == "__main__":
    main()
