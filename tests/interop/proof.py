"""Are the figures in a checkpoint's report.json true?  Every one of them, by transformers in float64.

    python3 proof.py NIBBLE_PROGRAM [--limit 24]        (torch, transformers 4.57, numpy, Pillow)

`nibble quantize` judges the demo by its reference kernels on conversations that calibration never saw.  The same is done here from
independently unpacked weights, with statistics by numpy: means, percentiles, agreement and perplexity, over all positions and over
answers, with and without a picture before them.  nibble keeps keys and values in bfloat16, so they are rounded here too, after the
rotation; all else is exact here and float32 there.  Means and perplexities must agree within 1e-4 of themselves (a KL: or 2e-8 nats),
percentiles and the largest value, which hang on single tokens, within 1e-3; counts and shares exactly.
"""
import argparse
import json
import os
import tempfile

import common

common.need("numpy", "torch", "transformers", "PIL")

import judge  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
from transformers import Qwen2VLForConditionalGeneration  # noqa: E402
from transformers.models.qwen2_vl import modeling_qwen2_vl as modeling  # noqa: E402

CASES = ["--method awq", "--method gptq -g 32", "--method rtn --format gptq_v2 --asym"]
NEAR, FAR = 1e-4, 1e-3
PERCENTILES = {"kl_median": 50, "kl_p90": 90, "kl_p95": 95, "kl_p99": 99, "kl_p999": 99.9, "kl_max": 100}


def round_cache():
    """Keys after the rotation and values to bfloat16, as an engine's cache has them."""
    rotate = modeling.apply_multimodal_rotary_pos_emb

    def rounded(q, k, *rest, **more):
        q, k = rotate(q, k, *rest, **more)
        return q, k.float().bfloat16().to(k.dtype)

    modeling.apply_multimodal_rotary_pos_emb = rounded


def double_model():
    model = Qwen2VLForConditionalGeneration.from_pretrained(common.ORIGINAL, dtype=torch.float64, attn_implementation="eager").eval()
    for layer in model.model.language_model.layers:
        layer.self_attn.v_proj.register_forward_hook(lambda module, inputs, out: out.float().bfloat16().to(out.dtype))
    return model


def figures(kl, nll, base, same, in5):
    n = len(kl)
    out = {"tokens": n}
    if n == 0:
        return out
    out.update(kl_mean=kl.mean(), kl_error=kl.std(ddof=1) / np.sqrt(n), top1=same.mean(), top5=in5.mean(), ppl=np.exp(nll.mean()),
               ref_ppl=np.exp(base.mean()), ln_ppl_ratio=(nll - base).mean())
    out.update({name: np.percentile(kl, at) for name, at in PERCENTILES.items()})
    return out


def judged(model, conversations, references, visual):
    kl, nll, base, same, in5, answer, after, pad = [], [], [], [], [], [], [], []
    for (inputs, mark), p in zip(conversations, references):
        q, ids = judge.log_probabilities(model, inputs), inputs["input_ids"][0]
        target, seen = ids[1:, None], torch.isin(ids, visual)
        kl.append((p.exp() * (p - q)).sum(-1))
        nll.append(-q.gather(1, target)[:, 0])
        base.append(-p.gather(1, target)[:, 0])
        best = p.argmax(-1)
        same.append(best == q.argmax(-1))
        in5.append((q > q.gather(1, best[:, None])).sum(-1) < 5)
        answer.append(mark)
        after.append(seen.cumsum(0)[:-1] > 0)
        pad.append(seen[1:])
    kl, nll, base, same, in5, answer, after, pad = (torch.cat(x).numpy() for x in (kl, nll, base, same, in5, answer, after, pad))
    out = {}
    for scope, inside in (("all", np.ones_like(answer)), ("answer", answer)):
        for over, part in (("", np.ones_like(answer)), ("_text", ~after & ~pad), ("_visual", after & ~pad)):
            keep = inside & part
            out[scope + over] = figures(kl[keep], nll[keep], base[keep], same[keep].astype(float), in5[keep].astype(float))
    return out


def distance(ours, theirs):
    """Of the largest relative difference and its figure; infinite where a count differs or something is missing."""
    worst = (0.0, "")
    for name, right in theirs.items():
        left = ours.get(name)
        if left is None or name in ("tokens", "top1", "top5"):
            apart = 0.0 if left == right or (left is not None and abs(left - right) < 1e-12) else float("inf")
        elif name == "ln_ppl_ratio":
            apart = abs(left - right)
        else:
            near = name.startswith("kl") and abs(left - right) <= 2e-8
            apart = 0.0 if near else abs(left / right - 1) * (NEAR / FAR if name in PERCENTILES or name == "kl_error" else 1)
        if not apart <= worst[0]:
            worst = (apart, name)
    return worst


def main():
    a = argparse.ArgumentParser()
    a.add_argument("program")
    a.add_argument("--limit", type=int, default=24)
    o = a.parse_args()
    print(f"{common.versions()}; first {o.limit} conversations of {os.path.basename(common.HOLDOUT)}")
    encode = judge.Encoder()
    with open(common.HOLDOUT) as f:
        conversations = [encode(json.loads(line)["messages"]) for _, line in zip(range(o.limit), f)]
    round_cache()
    model = double_model()
    conversations = [({k: v.double() if v.is_floating_point() else v for k, v in inputs.items()}, mark) for inputs, mark in conversations]
    references = [judge.log_probabilities(model, inputs) for inputs, _ in conversations]
    visual = torch.tensor([encode.pad, encode.tokens.convert_tokens_to_ids("<|video_pad|>")])
    os.environ["NIBBLE_ISA"] = "ref"
    rows, wrong = [], 0
    with tempfile.TemporaryDirectory() as work:
        for i, flags in enumerate(CASES):
            folder = os.path.join(work, str(i))
            data = [] if "rtn" in flags else ["--data", common.CALIBRATION, "--samples", "16"]
            common.nibble(o.program, "quantize", common.ORIGINAL, "--out", folder, "-q", *flags.split(), *data, "--holdout-data", common.HOLDOUT,
                          "--holdout", o.limit, "--answers", 0)
            with open(os.path.join(folder, "report.json")) as f:
                said = json.load(f)["judge"]["figures"]
            state = {name: tensor.double() for name, tensor in judge.unpacked(folder).items()}
            report = model.load_state_dict(state, strict=False)
            assert not report.unexpected_keys and set(report.missing_keys) <= {"lm_head.weight"}, report
            for scope, right in judged(model, conversations, references, visual).items():
                apart, name = distance(said[scope], right)
                good = apart <= NEAR
                wrong += not good
                rows.append([flags, scope, right["tokens"], f"{right.get('kl_mean', 0):.4g}", f"{said[scope].get('kl_mean', 0):.4g}", f"{apart / NEAR:.2f}", name,
                             "yes" if good else "NO"])
    common.table(["nibble quantize", "positions", "tokens", "KL, transformers", "KL, report.json", "most apart, of what is allowed", "figure", "agree"], rows)
    print(f"{len(rows) - wrong} of {len(rows)} sets of figures agree")
    return 0 if wrong == 0 else 1


if __name__ == "__main__":
    raise SystemExit(main())
