"""LoRA adapters made, saved and merged by PEFT itself, on a tiny random Qwen2-VL.

    python tests/oracle/peft_oracle.py

Writes tests/golden/peft/base/model.safetensors (bfloat16, the published tensor names) and, for each case, what PEFT's
save_pretrained wrote and expected.safetensors: the tensors that merge_and_unload changed, merged in float32 and rounded to bfloat16
at the end.  Printed beside it: in how many values PEFT differs when it merges the bfloat16 model directly (two roundings).
Needs torch, transformers 4.57, peft and safetensors.
"""
import json
import pathlib
import shutil

import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import Qwen2VLConfig, Qwen2VLForConditionalGeneration

OUT = pathlib.Path(__file__).resolve().parents[2] / "tests/golden/peft"
TEXT = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=96,
            max_position_embeddings=64, rope_scaling={"type": "mrope", "mrope_section": [1, 1, 2]})
VISION = dict(depth=1, embed_dim=32, hidden_size=32, num_heads=2, mlp_ratio=2, patch_size=4, in_channels=3)
CASES = {
    "plain": dict(r=4, lora_alpha=8, target_modules=["q_proj", "v_proj", "down_proj"]),
    "rslora": dict(r=9, lora_alpha=6, use_rslora=True, target_modules=["k_proj", "o_proj", "gate_proj"]),
    "patterns": dict(r=2, lora_alpha=5, target_modules=["q_proj", "k_proj", "up_proj", "down_proj"],
                     rank_pattern={"q_proj": 3, r"layers.1.mlp.(up|down)_proj": 6, r"^model.language_model.layers.0.mlp.up_proj": 1},
                     alpha_pattern={"k_proj": 1, "layers.0.mlp.down_proj": 11, "up_proj": 2}),
    "vision": dict(r=4, lora_alpha=4, target_modules=r".*visual\.(blocks\.\d+\.(attn\.(qkv|proj)|mlp\.fc[12])|merger\.mlp\.[02]"
                                                     r"|patch_embed\.proj)"),
    "embeddings": dict(r=4, lora_alpha=6, target_modules=["embed_tokens", "lm_head", "o_proj"]),
    "saved": dict(r=4, lora_alpha=8, target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head", "ln_q"]),
    "dora": dict(r=4, lora_alpha=8, use_dora=True, target_modules=["q_proj", "up_proj", "qkv", "fc1"]),
    "dora_rslora": dict(r=4, lora_alpha=8, use_dora=True, use_rslora=True, target_modules="all-linear"),
    "biases": dict(r=4, lora_alpha=8, bias="lora_only", target_modules=["q_proj", "v_proj"]),
    "lora_bias": dict(r=4, lora_alpha=8, lora_bias=True, target_modules=["q_proj", "k_proj"]),
}
OLD_NAMES = {"plain", "patterns", "dora"}  # also saved under the names of transformers before 4.52


def published(name):
    return name.replace("model.language_model.", "model.").replace("model.visual.", "visual.")


def build(tensors, dtype):
    config = Qwen2VLConfig(text_config=TEXT, vision_config=VISION, tie_word_embeddings=False)
    model = Qwen2VLForConditionalGeneration(config)
    model.load_state_dict({k: v.float() for k, v in tensors.items()})
    return model.to(dtype)


def train(model, seed):
    """Stands for training: every adapter parameter, magnitude, bias and saved module moves."""
    g = torch.Generator().manual_seed(seed)
    for name, p in model.named_parameters():
        if p.requires_grad:
            p.data = (p.data.float() + torch.randn(p.shape, generator=g) * 0.05).to(p.dtype)


def merged(tensors, config, seed, dtype, folder=None):
    torch.manual_seed(seed)
    model = get_peft_model(build(tensors, dtype), LoraConfig(task_type="CAUSAL_LM", **config))
    train(model, seed)
    if folder:
        model.save_pretrained(folder)
        (folder / "README.md").unlink()
        said = json.loads((folder / "adapter_config.json").read_text())
        if isinstance(said["target_modules"], list):
            said["target_modules"].sort()  # a set in PEFT: another order every time
        (folder / "adapter_config.json").write_text(json.dumps(said, indent=1) + "\n")
    out = model.merge_and_unload()
    return {k: v.detach().bfloat16() for k, v in out.state_dict().items()}


def main():
    torch.manual_seed(7)
    shutil.rmtree(OUT, ignore_errors=True)
    (OUT / "base").mkdir(parents=True)
    model = Qwen2VLForConditionalGeneration(Qwen2VLConfig(text_config=TEXT, vision_config=VISION, tie_word_embeddings=False))
    base = {k: (v + torch.randn_like(v) * 0.04).bfloat16() for k, v in model.state_dict().items()}
    save_file({published(k): v for k, v in base.items()}, OUT / "base/model.safetensors", {"format": "pt"})
    for seed, (name, config) in enumerate(CASES.items()):
        folder = OUT / name
        result = merged(base, config, seed, torch.float32, folder)
        direct = merged(base, config, seed, torch.bfloat16)
        changed = [k for k in base if not torch.equal(base[k], result[k])]
        save_file({published(k): result[k].contiguous() for k in changed}, folder / "expected.safetensors")
        other = sum(int((direct[k] != result[k]).sum()) for k in changed)
        print(f"{name}: {len(changed)} tensors; {other} of {sum(base[k].numel() for k in changed)} values differ in bfloat16")
        if name in OLD_NAMES:
            old = OUT / (name + "_old_names")
            shutil.copytree(folder, old)
            tensors = load_file(folder / "adapter_model.safetensors")
            save_file({k.replace("model.model.language_model.", "model.model.").replace("model.model.visual.", "model.visual."): v
                       for k, v in tensors.items()}, old / "adapter_model.safetensors", {"format": "pt"})
            text = (old / "adapter_config.json").read_text()
            (old / "adapter_config.json").write_text(text.replace("model.language_model.", "model."))
    for path in OUT.glob("*/*.safetensors"):
        path.chmod(0o644)


main()
