"""Decode speed of the demo model: nibble beside PyTorch eager, same machine, same run, same numbers of threads.

    python3 speed_torch.py NIBBLE_PROGRAM [--threads 2] [--rounds 5]        (torch, transformers 4.57)

One sequence, 32 tokens of context, 64 generated, greedy.  Rounds alternate (torch, nibble, torch, nibble, ...), so that other
load on the machine falls on both; medians over rounds.  Neither side's prompt processing is counted:
  generate   transformers' generate(), forced to 64 new tokens; from the first token's logits to the last one's, 63 steps
  loop       the least that eager PyTorch can do: model(token, past_key_values) and argmax, no generate() around it; 63 steps
  nibble     nibble bench -p 0 -n 64 -d 32 -r 5, mean
Everything is timed with one thread and with --threads: PyTorch's threads wait for each other at every operation, so that on a busy
machine, and with a model this small, one of them can be faster than two.  Exit code 1 when nibble's bfloat16 model with --threads
is less than five times the fastest bfloat16 of PyTorch, whatever its way and threads: median to median, and also nibble's median to
PyTorch's best round.
"""
import argparse
import os
import statistics
import tempfile
import time

import common

common.need("torch", "transformers")

import torch  # noqa: E402
from transformers import LogitsProcessor, LogitsProcessorList, Qwen2VLForConditionalGeneration  # noqa: E402

CONTEXT, NEW, WANTED = 32, 64, 5.0
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}


class Clock(LogitsProcessor):
    """Sees the logits of every new token, and changes nothing."""

    def __init__(self):
        self.times = []

    def __call__(self, input_ids, scores):
        self.times.append(time.perf_counter())
        return scores


@torch.inference_mode()
def by_generate(model, prompt):
    clock = Clock()
    out = model.generate(prompt, attention_mask=torch.ones_like(prompt), do_sample=False, use_cache=True, min_new_tokens=NEW,
                         max_new_tokens=NEW, temperature=None, top_p=None, top_k=None, repetition_penalty=1.0,
                         logits_processor=LogitsProcessorList([clock]))
    assert out.shape[1] == CONTEXT + NEW and len(clock.times) == NEW
    return (NEW - 1) / (clock.times[-1] - clock.times[0])


@torch.inference_mode()
def by_loop(model, prompt):
    model.model.rope_deltas = None
    out = model(input_ids=prompt, use_cache=True, cache_position=torch.arange(CONTEXT))
    token, start = out.logits[:, -1:].argmax(-1), time.perf_counter()
    for at in range(CONTEXT, CONTEXT + NEW - 1):
        out = model(input_ids=token, past_key_values=out.past_key_values, use_cache=True, cache_position=torch.tensor([at]))
        token = out.logits[:, -1:].argmax(-1)
    return (NEW - 1) / (time.perf_counter() - start)


def by_nibble(program, folder, threads):
    rows = common.nibble(program, "bench", folder, "-p", 0, "-n", NEW, "-d", CONTEXT, "-r", 5, "-t", threads, json_out=True)
    assert len(rows) == 1 and rows[0]["n_gen"] == NEW and rows[0]["n_depth"] == CONTEXT and rows[0]["n_threads"] == threads
    return rows[0]["avg_ts"]


def main():
    a = argparse.ArgumentParser()
    a.add_argument("program")
    a.add_argument("--threads", type=int, default=2)
    a.add_argument("--rounds", type=int, default=5)
    o = a.parse_args()
    counts = sorted({1, o.threads})
    print(f"{common.versions()}; {o.rounds} rounds, {NEW} tokens after {CONTEXT}")
    prompt = torch.randint(0, 900, (1, CONTEXT), generator=torch.Generator().manual_seed(0))  # text tokens only
    torch_models = {d: Qwen2VLForConditionalGeneration.from_pretrained(common.ORIGINAL, dtype=t).eval() for d, t in DTYPES.items()}
    ways = {"generate": by_generate, "loop": by_loop}
    with tempfile.TemporaryDirectory() as work:
        folders = {"bf16": common.ORIGINAL, "int8 gptq g128": os.path.join(work, "int8"), "int4 awq g128": os.path.join(work, "int4")}
        common.quantize(o.program, folders["int8 gptq g128"], "--method rtn --format gptq --bits 8")
        common.quantize(o.program, folders["int4 awq g128"], "--method rtn --format awq")
        speeds = {("torch", d, w, n): [] for d in DTYPES for w in ways for n in counts}
        speeds |= {("nibble", f, "bench", n): [] for f in folders for n in counts}
        for model in torch_models.values():  # untimed: the first calls allocate and choose kernels
            by_loop(model, prompt)
        for _ in range(o.rounds):
            for (program, d, w, n), seen in speeds.items():
                if program == "torch":
                    torch.set_num_threads(n)
                    seen.append(ways[w](torch_models[d], prompt))
            time.sleep(0.3)  # torch's threads spin for up to 0.2 s after their last work
            for (program, f, _, n), seen in speeds.items():
                if program == "nibble":
                    seen.append(by_nibble(o.program, folders[f], n))
    median = {k: statistics.median(v) for k, v in speeds.items()}
    rivals = [k for k in speeds if k[:2] == ("torch", "bf16")]
    base, best = max(median[k] for k in rivals), max(max(speeds[k]) for k in rivals)
    common.table(["program, model, way", "threads", "tokens/s, median", "least", "most", "times torch bf16", "times its best round"],
                 [[", ".join(k[:3]), k[3], f"{m:.1f}", f"{min(speeds[k]):.1f}", f"{max(speeds[k]):.1f}", f"{m / base:.2f}", f"{m / best:.2f}"]
                  for k, m in median.items()])
    ours = median["nibble", "bf16", "bench", o.threads]
    print(f"nibble bf16 is {ours / base:.1f} times the fastest eager bf16's median ({base:.1f} tokens/s) and {ours / best:.1f} times its "
          f"best round ({best:.1f}); at least {WANTED:g} is wanted of both")
    return 0 if ours / base >= WANTED and ours / best >= WANTED else 1


if __name__ == "__main__":
    raise SystemExit(main())
