"""Read what nibble writes with code that is not nibble's, and compare bit for bit.

    python3 read_back.py NIBBLE_PROGRAM        (numpy, torch and transformers 4.57)

The demo model is quantized into every form that nibble writes.  For each checkpoint:
  - tests/oracle/read_quantized.py, written from the published layouts, dequantizes every matrix; the FNV-1a hash of its
    float32 bytes must be the one that `nibble inspect --dequantized` prints, so both readers agree in every bit;
  - the tensors (names, shapes, types) are exactly those of transformers' own Qwen2-VL for this config.json, built without
    weights, with each decoder linear's weight replaced by the tensors of the form; no tied head, no stray bias;
  - tensors that the method does not touch are the original's, rounded to float16;
  - config.json is the original's with a float16 dtype and exactly the block of the form, quantize_config.json repeats that
    block, metadata says format pt, and the other files are the original's byte for byte.
"""
import filecmp
import json
import os
import re
import sys
import tempfile

import common

common.need("numpy", "torch", "transformers")

import numpy as np  # noqa: E402
import read_quantized  # noqa: E402
import torch  # noqa: E402
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration  # noqa: E402


def awq(group):
    return {"quant_method": "awq", "bits": 4, "group_size": group, "zero_point": True, "version": "gemm",
            "modules_to_not_convert": ["visual", "model.visual", "lm_head"]}


def gptq(bits, group, sym=True, desc_act=False, solved=True, static=False, v2=False):
    return {"quant_method": "gptq", "bits": bits, "group_size": group, "sym": sym, "desc_act": desc_act,
            "true_sequential": solved, "damp_percent": 0.01, "static_groups": static, "dataset": None,
            "modules_in_block_to_quantize": None, "checkpoint_format": "gptq_v2" if v2 else "gptq"}


CASES = [  # flags of nibble quantize, the block that config.json must hold
    ("--method rtn --format awq -g 128", awq(128)),
    ("--method rtn --format awq -g 64 --sym", awq(64)),
    ("--method rtn --format awq -g 32", awq(32)),
    ("--method rtn --format gptq -g 128", gptq(4, 128, solved=False)),
    ("--method rtn --format gptq -g -1", gptq(4, -1, solved=False)),
    ("--method rtn --format gptq --bits 8 -g 32", gptq(8, 32, solved=False)),
    ("--method rtn --format gptq --bits 8 -g -1", gptq(8, -1, solved=False)),
    ("--method rtn --format gptq_v2 -g 64 --asym", gptq(4, 64, sym=False, solved=False, v2=True)),
    ("--method rtn --format gptq_v2 --bits 8 -g -1 --asym", gptq(8, -1, sym=False, solved=False, v2=True)),
    ("--method awq -g 128", awq(128)),
    ("--method awq -g 64", awq(64)),
    ("--method awq -g 32 --sym", awq(32)),
    ("--method gptq -g 128", gptq(4, 128)),
    ("--method gptq -g 64", gptq(4, 64)),
    ("--method gptq -g 32", gptq(4, 32)),
    ("--method gptq -g -1", gptq(4, -1)),
    ("--method gptq --bits 8 -g 128", gptq(8, 128)),
    ("--method gptq --bits 8 -g 64", gptq(8, 64)),
    ("--method gptq --bits 8 -g -1", gptq(8, -1)),
    ("--method gptq -g 32 --act-order full", gptq(4, 32, desc_act=True)),
    ("--method gptq --bits 8 -g 128 --act-order full", gptq(8, 128, desc_act=True)),
    ("--method gptq -g 128 --act-order group", gptq(4, 128)),
    ("--method gptq -g 128 --act-order full --static-groups", gptq(4, 128, static=True)),
    ("--method gptq -g 128 --format gptq_v2 --asym", gptq(4, 128, sym=False, v2=True)),
    ("--method gptq --bits 8 -g 64 --format gptq_v2 --asym --act-order full",
     gptq(8, 64, sym=False, desc_act=True, v2=True)),
    ("--method gptq -g 128 --format gptq_v2", gptq(4, 128, v2=True)),
]

COPIED = ["chat_template.json", "generation_config.json", "merges.txt", "preprocessor_config.json",
          "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json", "vocab.json"]


class Wrong(Exception):
    pass


def claim(true, text):
    if not true:
        raise Wrong(text)


def fnv1a(data):
    hashed = 0xCBF29CE484222325
    for byte in data:
        hashed = (hashed ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return f"{hashed:016x}"


def published(name):
    """A name of transformers 4.57's classes as published checkpoints spell it."""
    return re.sub(r"^model\.visual\.", "visual.", re.sub(r"^model\.language_model\.", "model.", name))


def bare_model():
    """Name -> shape of all parameters of the original's class; no weight is read or made."""
    config = Qwen2VLConfig.from_pretrained(common.ORIGINAL)
    with torch.device("meta"):
        model = Qwen2VLForConditionalGeneration(config)
    shapes = {published(n): tuple(t.shape) for n, t in model.state_dict().items()}
    if config.tie_word_embeddings:
        del shapes["lm_head.weight"]
    return shapes


def wanted_tensors(shapes, block):
    """Name -> (shape, type) of a checkpoint of this form."""
    out = {}
    for name, shape in shapes.items():
        if not re.fullmatch(r"model\.layers\.\d+\..*_proj\.weight", name):
            out[name] = shape, "F16"
            continue
        p, (n, k), bits = name[:-len(".weight")], shape, block["bits"]
        per, group = 32 // bits, block["group_size"] if block["group_size"] > 0 else k
        groups = -(-k // group)
        out[p + ".scales"] = (groups, n), "F16"
        out[p + ".qzeros"] = (groups, n // per), "I32"
        if block["quant_method"] == "awq":
            out[p + ".qweight"] = (k, n // per), "I32"
        else:
            out[p + ".qweight"] = (k // per, n), "I32"
            out[p + ".g_idx"] = (k,), "I32"
    return out


def float_values(array, dtype):
    return (array.astype(np.uint32) << 16).view(np.float32) if dtype == "BF16" else array.astype(np.float32)


def check_tensors(tensors, original, shapes, block, flags):
    found = {n: (tuple(a.shape), t) for n, (a, t) in tensors.items()}
    wanted = wanted_tensors(shapes, block)
    claim(set(found) == set(wanted), f"missing {sorted(set(wanted) - set(found))[:3]}, too many {sorted(set(found) - set(wanted))[:3]}")
    for name in wanted:
        claim(found[name] == wanted[name], f"{name} is {found[name]}, expected {wanted[name]}")
    kept = 0
    for name, (array, dtype) in original.items():
        if name not in tensors or "--method awq" in flags and name.startswith("model.layers."):
            continue  # AWQ moves scales into the norms, and into the bias of v_proj
        claim(np.array_equal(tensors[name][0], float_values(array, dtype).astype(np.float16)), f"{name} is not the original's")
        kept += 1
    return kept


def check_files(folder, block):
    with open(os.path.join(folder, "config.json")) as f:
        config = json.load(f)
    with open(os.path.join(common.ORIGINAL, "config.json")) as f:
        expected = json.load(f)
    expected.update(torch_dtype="float16", quantization_config=block)
    claim(config == expected, f"config.json is {config}, expected {expected}")
    claim(list(config["quantization_config"]) == list(block), "the block's keys are in another order than published")
    names = set(COPIED) | {"config.json", "model.safetensors", "recipe.json", "report.json", "report.html", "README.md"}
    if block["quant_method"] == "gptq":
        names.add("quantize_config.json")
        with open(os.path.join(folder, "quantize_config.json")) as f:
            claim(json.load(f) == block, "quantize_config.json differs from config.json")
    claim(set(os.listdir(folder)) == names, f"files {sorted(set(os.listdir(folder)) ^ names)} are missing or too many")
    for name in COPIED:
        claim(filecmp.cmp(os.path.join(folder, name), os.path.join(common.ORIGINAL, name), shallow=False), f"{name} was changed")


def check_matrices(program, folder, tensors, block):
    rows = common.nibble(program, "inspect", folder, "--dequantized", json_out=True)["dequantized"]
    theirs = {row["name"]: (row["shape"], row["fnv1a64"]) for row in rows}
    names = sorted(n[:-len(".qweight")] for n in tensors if n.endswith(".qweight"))
    claim(sorted(theirs) == names, f"nibble lists {len(theirs)} linears, the file holds {len(names)}")
    for name in names:
        part = {t: tensors[f"{name}.{t}"][0] for t in ("qweight", "qzeros", "scales", "g_idx") if f"{name}.{t}" in tensors}
        w = read_quantized.dequantize(part, block)
        claim(theirs[name] == (str(list(w.shape)), fnv1a(w.astype("<f4").tobytes())), f"{name}: the readers disagree")
    return len(names)


def check(program, folder, flags, block, original, shapes):
    common.quantize(program, folder, flags)
    check_files(folder, block)
    tensors = read_quantized.read_all(folder)  # a strict reader: alignment, holes, metadata format pt
    kept = check_tensors(tensors, original, shapes, block, flags)
    return check_matrices(program, folder, tensors, block), kept


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: read_back.py NIBBLE_PROGRAM")
    print(common.versions())
    original, shapes = read_quantized.read_all(common.ORIGINAL), bare_model()
    claim({n: tuple(a.shape) for n, (a, _) in original.items()} == shapes, "the original is not what transformers expects")
    rows, wrong = [], 0
    with tempfile.TemporaryDirectory() as work:
        for i, (flags, block) in enumerate(CASES):
            try:
                matrices, kept = check(sys.argv[1], os.path.join(work, str(i)), flags, block, original, shapes)
                rows.append([flags, f"{matrices} of {matrices} equal", f"{kept} unchanged"])
            except (Wrong, SystemExit) as why:  # read_quantized and nibble's own failures end a script
                wrong += 1
                rows.append([flags, "WRONG", str(why)])
    common.table(["nibble quantize", "matrices, bit for bit", "other tensors"], rows)
    print(f"{len(CASES) - wrong} of {len(CASES)} checkpoints are read back exactly")
    sys.exit(wrong != 0)


if __name__ == "__main__":
    main()
