"""What transformers computes for one conversation, in the names of `nibble trace` (float32, CPU, eager attention).

    python tests/interop/trace_reference.py MODEL MESSAGES.jsonl ROW OUT.safetensors [IMAGE_ROOT [LAYER]]
    build/nibble trace MODEL --messages MESSAGES.jsonl --row ROW --image-root IMAGE_ROOT --all-logits --out mine.safetensors
    build/nibble trace --compare OUT.safetensors mine.safetensors

Forward hooks collect the tensors; rotated queries and keys are taken from the function that rotates them.  With LAYER only that
layer of the decoder is kept, and floats as float16: tests/golden/trace.safetensors is

    ... tools/demo/model tests/golden/prompts.jsonl 3 tests/golden/trace.safetensors tests/golden 3
"""
import json
import os
import sys

import torch
import transformers.models.qwen2_vl.modeling_qwen2_vl as modeling
from PIL import Image
from safetensors.torch import save_file
from transformers import AutoTokenizer, Qwen2VLForConditionalGeneration
from transformers.models.qwen2_vl.image_processing_qwen2_vl import Qwen2VLImageProcessor


def pictures(messages, root):
    found = []
    for message in messages:
        for part in message["content"] if isinstance(message["content"], list) else []:
            if part.get("type") == "video":
                sys.exit("conversations with videos are not traced here")
            if part.get("type") == "image":
                found.append(Image.open(os.path.join(root, part["image"])).convert("RGB"))
    return found


def encode(directory, messages, images):
    """Ids with one placeholder for each row of a picture, as the processor does it (which itself needs torchvision)."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    template = os.path.join(directory, "chat_template.json")
    with open(template, encoding="utf-8") as file:
        text = tokenizer.apply_chat_template(messages, chat_template=json.load(file)["chat_template"], tokenize=False, add_generation_prompt=True)
    inputs = {}
    if images:
        inputs.update(Qwen2VLImageProcessor.from_pretrained(directory)(images=images, return_tensors="pt"))
        parts = text.split("<|image_pad|>")
        text = parts[0]
        for grid, rest in zip(inputs["image_grid_thw"], parts[1:]):
            text += "<|image_pad|>" * (int(grid.prod()) // 4) + rest
    inputs["input_ids"] = torch.tensor([tokenizer(text)["input_ids"]])
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    return inputs


def main(directory, file, row, out, root, only=None):
    with open(file, encoding="utf-8") as lines:
        messages = [json.loads(line) for line in lines if line.strip()][int(row) - 1]["messages"]
    model = Qwen2VLForConditionalGeneration.from_pretrained(directory, dtype=torch.float32, attn_implementation="eager").eval()
    images = pictures(messages, root)
    inputs = encode(directory, messages, images)
    kept = {"input_ids": inputs["input_ids"][0].int()}

    def keep(name, tensor):
        kept[name] = tensor.detach().float().reshape(-1, tensor.shape[-1]).contiguous().clone()

    def output(name):
        return lambda module, args, result: keep(name, result[0] if isinstance(result, tuple) else result)

    def given(name):
        def hook(module, args, kwargs):
            keep(name, args[0] if args else kwargs["hidden_states"])
        return hook

    tower, decoder = model.model.visual, model.model.language_model
    rotate, at = modeling.apply_multimodal_rotary_pos_emb, [0]

    def rotated(q, k, cos, sin, *args, **kwargs):
        q, k = rotate(q, k, cos, sin, *args, **kwargs)
        for name, x in (("q", q), ("k", k)):  # [1, heads, tokens, size]
            keep(f"layer.{at[0]}.{name}", x[0].transpose(0, 1).flatten(1))
        at[0] += 1
        return q, k

    modeling.apply_multimodal_rotary_pos_emb = rotated
    for index, layer in enumerate(decoder.layers):
        layer.register_forward_pre_hook(given(f"layer.{index}.input"), with_kwargs=True)
        layer.self_attn.v_proj.register_forward_hook(output(f"layer.{index}.v"))
        layer.self_attn.o_proj.register_forward_pre_hook(given(f"layer.{index}.attention"), with_kwargs=True)
        layer.self_attn.o_proj.register_forward_hook(output(f"layer.{index}.attn_out"))
        layer.mlp.register_forward_hook(output(f"layer.{index}.mlp_out"))
    decoder.norm.register_forward_pre_hook(given("final.input"), with_kwargs=True)
    decoder.norm.register_forward_hook(output("final.norm"))
    with torch.no_grad():
        logits = model(**inputs).logits
        keep("logits", logits)
        positions, _ = model.model.get_rope_index(inputs["input_ids"], inputs.get("image_grid_thw"), None, inputs["attention_mask"])
        kept["position_ids"] = positions[:, 0].int().contiguous()
        first = 0
        for m in range(len(images)):  # the tower once for each picture: in one call their patches lie one after the other
            grid = inputs["image_grid_thw"][m]
            pixels = inputs["pixel_values"][first:first + int(grid.prod())]
            first += int(grid.prod())
            kept[f"visual.{m}.grid_thw"] = grid.int().clone()
            keep(f"visual.{m}.pixels", pixels)
            hooks = [tower.patch_embed.register_forward_hook(output(f"visual.{m}.patches")),
                     tower.merger.register_forward_hook(output(f"visual.{m}.rows"))]
            hooks += [b.register_forward_hook(output(f"visual.{m}.block.{i}")) for i, b in enumerate(tower.blocks)]
            tower(pixels, grid_thw=grid[None])
            for hook in hooks:
                hook.remove()
    if only is not None:
        kept = {n: t.half() if t.dtype == torch.float32 else t for n, t in kept.items() if not n.startswith("layer.") or n.split(".")[1] == only}
    save_file(kept, out, metadata={"format": "pt", "arithmetic": "transformers float32"})
    print(f"{out}: {len(kept)} tensors, {kept['input_ids'].numel()} tokens")


if __name__ == "__main__":
    if len(sys.argv) not in (5, 6, 7):
        sys.exit(__doc__)
    main(*sys.argv[1:5], sys.argv[5] if len(sys.argv) > 5 else os.path.dirname(sys.argv[2]), *sys.argv[6:])
