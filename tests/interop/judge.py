"""Is what `nibble eval` says about a quantized checkpoint true?  The same figures by transformers in float32.

    python3 judge.py NIBBLE_PROGRAM [--limit 24] [--exact]        (torch, transformers 4.57, numpy, Pillow)

Checkpoints of the demo model are unpacked by tests/oracle/read_quantized.py (nothing of nibble), put as float32 weights into
transformers' Qwen2-VL, and run beside the original on conversations that calibration never saw.  The mean KL divergence must
agree with nibble's within 5 % or 2e-5 nats, perplexity within 0.1 %, over all tokens and over answers, and the number of
tokens exactly.  nibble runs as users run it: fast kernels, 8-bit activations where it uses them, bfloat16 KV cache; the
tolerance covers that.  --exact asks it for its reference kernels and a float32 cache instead.
"""
import argparse
import json
import math
import os
import tempfile

import common

common.need("numpy", "torch", "transformers", "PIL")

import numpy as np  # noqa: E402
import read_quantized  # noqa: E402
import torch  # noqa: E402
from PIL import Image  # noqa: E402
from transformers import Qwen2TokenizerFast, Qwen2VLForConditionalGeneration, Qwen2VLImageProcessor  # noqa: E402

CASES = ["--method awq", "--method awq -g 32", "--method gptq", "--method gptq -g 32 --act-order full", "--method gptq --bits 8",
         "--method rtn --format gptq_v2 --asym", "--method rtn --format gptq -g -1"]
KL_SHARE, KL_NATS, PPL_SHARE = 0.05, 2e-5, 1e-3


class Encoder:
    """A conversation -> model inputs and, for each token, whether it is part of an answer."""

    def __init__(self):
        self.tokens = Qwen2TokenizerFast.from_pretrained(common.ORIGINAL)
        self.pictures = Qwen2VLImageProcessor.from_pretrained(common.ORIGINAL)
        with open(os.path.join(common.ORIGINAL, "chat_template.json")) as f:
            self.template = json.load(f)["chat_template"]
        self.start, self.end, self.pad = self.tokens.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>", "<|image_pad|>"])
        self.answer_head = self.tokens.encode("assistant\n", add_special_tokens=False)

    def answers(self, ids):
        """True from after each "assistant" line up to and with the mark that ends the turn."""
        mark, inside, i = [False] * len(ids), False, 0
        while i < len(ids):
            if ids[i] == self.start:
                inside = ids[i + 1:i + 1 + len(self.answer_head)] == self.answer_head
                i += 1 + len(self.answer_head) if inside else 1
                continue
            mark[i] = inside
            inside = inside and ids[i] != self.end
            i += 1
        return mark

    def __call__(self, messages):
        parts = [p for m in messages if not isinstance(m["content"], str) for p in m["content"]]
        if any(p["type"] == "video" for p in parts):
            raise SystemExit("judge.py does not do videos: lower --limit")
        images = [Image.open(os.path.join(os.path.dirname(common.HOLDOUT), p["image"])).convert("RGB") for p in parts if p["type"] == "image"]
        text, made = self.tokens.apply_chat_template(messages, chat_template=self.template, tokenize=False), {}
        if images:
            made = dict(self.pictures(images=images, return_tensors="pt"))
            pieces = text.split("<|image_pad|>")
            counts = [int(grid.prod()) // 4 for grid in made["image_grid_thw"]]
            assert len(pieces) == len(counts) + 1
            text = pieces[0] + "".join("<|image_pad|>" * n + piece for n, piece in zip(counts, pieces[1:]))
        ids = self.tokens.encode(text, add_special_tokens=False)
        return {"input_ids": torch.tensor([ids]), **made}, torch.tensor(self.answers(ids)[1:])


@torch.inference_mode()
def log_probabilities(model, inputs):
    """Float64 [tokens - 1, vocabulary]: row t predicts token t + 1."""
    model.model.rope_deltas = None
    return torch.log_softmax(model(**inputs).logits[0, :-1].double(), -1)


def float_tensor(array, dtype):
    if dtype == "BF16":
        array = (array.astype(np.uint32) << 16).view(np.float32)
    return torch.from_numpy(array.astype(np.float32))


def unpacked(folder):
    """Float32 state of a checkpoint, names as transformers' classes have them."""
    with open(os.path.join(folder, "config.json")) as f:
        block = json.load(f)["quantization_config"]
    tensors, state = read_quantized.read_all(folder), {}
    for name, (array, dtype) in tensors.items():
        p, _, last = name.rpartition(".")
        if last == "qweight":
            part = {t: tensors[f"{p}.{t}"][0] for t in ("qweight", "qzeros", "scales", "g_idx") if f"{p}.{t}" in tensors}
            state[p + ".weight"] = torch.from_numpy(read_quantized.dequantize(part, block))
        elif last in ("weight", "bias"):
            state[name] = float_tensor(array, dtype)
    return {("model." + n if n.startswith("visual.") else n.replace("model.", "model.language_model.", 1)): t for n, t in state.items()}


def judged(model, conversations, references):
    """Scope -> tokens, mean KL, perplexity, the original's perplexity."""
    kl, nll, base, answer = [], [], [], []
    for (inputs, mark), p in zip(conversations, references):
        q, target = log_probabilities(model, inputs), inputs["input_ids"][0, 1:, None]
        kl.append((p.exp() * (p - q)).sum(-1))
        nll.append(-q.gather(1, target)[:, 0])
        base.append(-p.gather(1, target)[:, 0])
        answer.append(mark)
    kl, nll, base, answer = map(torch.cat, (kl, nll, base, answer))
    return {scope: {"tokens": int(s.sum()), "kl_mean": float(kl[s].mean()), "ppl": math.exp(nll[s].mean()), "ref_ppl": math.exp(base[s].mean())}
            for scope, s in (("all", torch.ones_like(answer)), ("answer", answer))}


def agrees(ours, theirs):
    """A NaN agrees with nothing."""
    near = abs(ours["kl_mean"] - theirs["kl_mean"]) <= max(KL_SHARE * abs(theirs["kl_mean"]), KL_NATS)
    ppl = all(abs(ours[key] / theirs[key] - 1) <= PPL_SHARE for key in ("ppl", "ref_ppl"))
    return ours["tokens"] == theirs["tokens"] and near and ppl


def off(ours, theirs, key, digits):
    return f"{ours[key] / theirs[key] - 1:+.{digits}%}"


def main():
    a = argparse.ArgumentParser()
    a.add_argument("program")
    a.add_argument("--limit", type=int, default=24)
    a.add_argument("--exact", action="store_true")
    o = a.parse_args()
    exact = ["--kv-cache-dtype", "f32"] if o.exact else []
    print(f"{common.versions()}; first {o.limit} conversations of {os.path.basename(common.HOLDOUT)}{'; nibble exact' if o.exact else ''}")
    encode = Encoder()
    with open(common.HOLDOUT) as f:
        conversations = [encode(json.loads(line)["messages"]) for _, line in zip(range(o.limit), f)]
    model = Qwen2VLForConditionalGeneration.from_pretrained(common.ORIGINAL, dtype=torch.float32).eval()
    references = [log_probabilities(model, inputs) for inputs, _ in conversations]
    rows, wrong = [], 0
    with tempfile.TemporaryDirectory() as work:
        folders = [os.path.join(work, str(i)) for i in range(len(CASES))]
        for flags, folder in zip(CASES, folders):
            common.quantize(o.program, folder, flags)
        if o.exact:
            os.environ["NIBBLE_ISA"] = "ref"
        told = common.nibble(o.program, "eval", *folders, "--ref", common.ORIGINAL, "--data", common.HOLDOUT, "--limit", o.limit, *exact,
                             json_out=True)["models"]
        for flags, folder, said in zip(CASES, folders, told):
            report = model.load_state_dict(unpacked(folder), strict=False)
            assert not report.unexpected_keys and set(report.missing_keys) <= {"lm_head.weight"}, report
            for scope, right in judged(model, conversations, references).items():
                ours = said["chats"][scope]
                good = agrees(ours, right)
                wrong += not good
                rows.append([flags, scope, right["tokens"], f"{right['kl_mean']:.3g}", f"{ours['kl_mean']:.3g}", off(ours, right, "kl_mean", 2),
                             f"{right['ppl']:.5g}", off(ours, right, "ppl", 4), off(ours, right, "ref_ppl", 4), "yes" if good else "NO"])
    common.table(["nibble quantize", "scope", "tokens", "KL, transformers", "KL, nibble", "differs", "ppl, transformers", "nibble's differs",
                  "original's differs", "agree"], rows)
    print(f"{len(rows) - wrong} of {len(rows)} comparisons agree")
    return 0 if wrong == 0 else 1


if __name__ == "__main__":
    raise SystemExit(main())
