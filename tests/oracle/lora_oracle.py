"""Two small LoRA adapters for the demo model, and what merging them gives.

    python tests/oracle/lora_oracle.py

Writes tests/golden/lora/{plain,dora}/ (PEFT directories: adapter_config.json, adapter_model.safetensors) and expected.json: for
each list of adapters, the FNV-1a hash of the bfloat16 bytes of every merged tensor.  The merge is the definition in float64,
rounded to float32 and then to bfloat16; how many values PEFT's float32 order rounds differently is printed.  Needs torch and
safetensors.
"""
import json
import math
import pathlib

import torch
from safetensors.torch import load_file, save_file

TREE = pathlib.Path(__file__).resolve().parents[2]
OUT = TREE / "tests/golden/lora"
BASE = load_file(TREE / "tools/demo/model/model.safetensors")
SEED = torch.Generator().manual_seed(20)


def normal(*shape, scale=0.05):
    return torch.randn(*shape, generator=SEED) * scale


def low_rank(module, weight, rank):
    return {module + ".lora_A.weight": normal(rank, weight.shape[1]), module + ".lora_B.weight": normal(weight.shape[0], rank)}


def make_plain():
    """Old layout; one alpha and rank for most, patterns for some; a convolution, an embedding, biases and whole modules."""
    p, t = "base_model.model.", {}
    for module, rank in (("model.layers.0.self_attn.q_proj", 4), ("model.layers.0.self_attn.o_proj", 4),
                         ("model.layers.1.mlp.gate_proj", 2), ("model.layers.5.mlp.down_proj", 3),
                         ("visual.blocks.0.attn.qkv", 4), ("visual.merger.mlp.2", 4)):
        t.update(low_rank(p + module, BASE[module + ".weight"], rank))
    conv = BASE["visual.patch_embed.proj.weight"]
    t[p + "visual.patch_embed.proj.lora_A.weight"] = normal(2, *conv.shape[1:])
    t[p + "visual.patch_embed.proj.lora_B.weight"] = normal(conv.shape[0], 2, 1, 1, 1)
    embed = BASE["model.embed_tokens.weight"]
    t[p + "model.embed_tokens.lora_embedding_A"] = normal(4, embed.shape[0])
    t[p + "model.embed_tokens.lora_embedding_B"] = normal(embed.shape[1], 4)
    t[p + "model.layers.0.self_attn.q_proj.base_layer.bias"] = normal(256)
    t[p + "model.layers.0.self_attn.v_proj.bias"] = normal(128)
    t[p + "visual.merger.ln_q.weight"] = 1 + normal(192)
    t[p + "visual.merger.mlp.0.bias"] = normal(768)
    config = {"peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": "demo", "r": 4, "lora_alpha": 8,
              "lora_dropout": 0.05, "bias": "all", "fan_in_fan_out": False, "use_rslora": False, "use_dora": False,
              "init_lora_weights": True, "target_modules": ["q_proj", "this list is not believed"], "modules_to_save": ["merger"],
              "rank_pattern": {"gate_proj": 2, r"model\.layers\.\d+\.mlp\.down_proj": 3, "patch_embed.proj": 2},
              "alpha_pattern": {"^model.layers.[15].mlp.(?:gate|up)_proj": 6, "blocks.0.attn.qkv": 1.5, "qkv": 99},
              "layer_replication": None, "inference_mode": True}
    alpha = {"model.layers.1.mlp.gate_proj": 6, "visual.blocks.0.attn.qkv": 1.5}
    return t, config, alpha


def make_dora():
    """New layout, DoRA with rank-stabilised scales, bfloat16; two modules are also in the other adapter."""
    p, t = "base_model.model.", {}
    for module, base in (("model.language_model.layers.0.self_attn.q_proj", "model.layers.0.self_attn.q_proj"),
                         ("model.language_model.layers.2.mlp.up_proj", "model.layers.2.mlp.up_proj"),
                         ("model.visual.blocks.0.attn.qkv", "visual.blocks.0.attn.qkv"),
                         ("model.visual.blocks.3.mlp.fc1", "visual.blocks.3.mlp.fc1")):
        w = BASE[base + ".weight"]
        t.update(low_rank(p + module, w, 2))
        t[p + module + ".lora_magnitude_vector"] = w.float().norm(dim=1) * (1 + normal(w.shape[0]))
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "bias": "none", "fan_in_fan_out": False, "use_rslora": True,
              "use_dora": True, "target_modules": ".*", "rank_pattern": {}, "alpha_pattern": {}}
    return {k: v.bfloat16() for k, v in t.items()}, config, {}


def canonical(module):
    return module.replace("base_model.model.", "").replace("model.language_model.", "model.").replace("model.visual.", "visual.")


def merge(weights, tensors, config, alphas, factor, number=torch.float64):
    """Merged copies of the weights; float32 values are kept between adapters."""
    out = dict(weights)
    def scale(module, rank):
        return factor * alphas.get(module, config["lora_alpha"]) / (math.sqrt(rank) if config["use_rslora"] else rank)
    for name, a in tensors.items():
        a = a.to(number)
        if name.endswith(".lora_A.weight"):
            full = name[:-len(".lora_A.weight")]
            module, b = canonical(full), tensors[full + ".lora_B.weight"].to(number)
            w = out[module + ".weight"].to(number)
            delta = (b.flatten(1) @ a.flatten(1)).reshape(w.shape) * scale(module, a.shape[0])
            w = w + delta
            if config["use_dora"]:
                m = tensors[full + ".lora_magnitude_vector"].to(number)
                w = (m / w.norm(dim=1))[:, None] * w
            out[module + ".weight"] = w.float()
        elif name.endswith(".lora_embedding_A"):
            module, b = canonical(name[:-len(".lora_embedding_A")]), tensors[name[:-1] + "B"].to(number)
            out[module + ".weight"] = (out[module + ".weight"].to(number) + (b @ a).T * scale(module, a.shape[0])).float()
        elif "lora_" not in name:
            target = canonical(name).replace(".base_layer", "")
            w = out[target].to(number)
            out[target] = (w + factor * (a - w) if factor != 1 else a).float()
    return out


def fnv(t):
    h = 0xcbf29ce484222325
    for byte in t.bfloat16().contiguous().view(torch.uint8).flatten().tolist():
        h = (h ^ byte) * 0x100000001b3 & (1 << 64) - 1
    return f"{h:016x}"


def main():
    made = {"plain": make_plain(), "dora": make_dora()}
    for name, (tensors, config, _) in made.items():
        folder = OUT / name
        folder.mkdir(parents=True, exist_ok=True)
        save_file(tensors, folder / "adapter_model.safetensors", {"format": "pt"})
        (folder / "adapter_config.json").write_text(json.dumps(config, indent=2) + "\n")
    cases = []
    for use in ([("plain", 1)], [("plain", 0.5)], [("plain", -2)], [("dora", 1)], [("plain", 1), ("dora", 1)],
                [("dora", 1), ("plain", 1)]):
        exact, single = BASE, BASE
        for name, factor in use:
            exact, single = merge(exact, *made[name], factor), merge(single, *made[name], factor, torch.float32)
        changed = sorted(k for k in BASE if exact[k] is not BASE[k])
        other = sum(int((exact[k].bfloat16() != single[k].bfloat16()).sum()) for k in changed)
        total = sum(BASE[k].numel() for k in changed)
        print(use, len(changed), "tensors;", other, "of", total, "values differ in float32 arithmetic")
        cases.append({"adapters": [{"name": n, "scale": f} for n, f in use], "tensors": {k: fnv(exact[k]) for k in changed}})
    (OUT / "expected.json").write_text(json.dumps(cases, indent=1) + "\n")


main()
