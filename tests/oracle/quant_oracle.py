#!/usr/bin/env python3
"""Textbook GPTQ and AWQ in NumPy, written apart from the C code: small cases with their expected codes, scales and losses.

    python3 tests/oracle/quant_oracle.py tests/golden

writes quant_gptq.json and quant_awq.json.  Inputs are not stored: both sides make them from a seed with the generator of
tests/unit/unit.h.  What is independent here:
  GPTQ  unblocked, float64, U = chol(inv(H)) by its definition, every error applied at once to the whole matrix;
  AWQ   the loss is taken from the inputs themselves, mean over X (W - Q(W s) / s)', never from a Gram matrix.
"""
import json
import sys

import numpy as np

F = np.float32
MASK = (1 << 64) - 1


class Random:
    """unit_random, unit_uniform and unit_normal of unit.h."""

    def __init__(self, seed):
        self.state = seed

    def uniform(self):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) & MASK
        return F(F(self.state >> 33) / F(1073741824.0) - F(1.0))

    def normal(self):
        total = F(0)
        for _ in range(12):
            total = F(total + self.uniform())
        return F(total * F(0.5))


def make_inputs(seed, n, k, tokens, dead):
    """W [n, k] float32 and X [tokens, k] float64: neighbours correlate, every 17th channel is loud, some are dead."""
    r = Random(seed)
    w = np.array([[r.normal() for _ in range(k)] for _ in range(n)], F) * F(0.05)
    x = np.zeros((tokens, k))
    for t in range(tokens):
        common, previous = float(r.normal()), 0.0
        for c in range(k):
            previous = 0.6 * previous + float(r.normal()) + 0.5 * common
            x[t, c] = previous * (8.0 if c % 17 == 5 else 1.0 + (c % 3) * 0.25)
    for c in dead:
        x[:, c] = 0.0
    return w, x


# ---- grid ----------------------------------------------------------------------------------------------------------------

def fit(values, bits, sym, clip=1.0):
    maxq = (1 << bits) - 1
    lo, hi = min(0.0, float(values.min())), max(0.0, float(values.max()))
    if lo == 0.0 and hi == 0.0:
        lo, hi = -1.0, 1.0
    if sym:
        scale = float(np.float16(2.0 * max(-lo, hi) * clip / maxq))
        return scale, (maxq + 1) // 2
    scale = float(np.float16((hi - lo) * clip / maxq))
    return scale, int(np.clip(np.rint(-lo * clip / scale), 0, maxq))


def codes_of(values, scale, zero, bits):
    return np.clip(np.rint(values / scale) + zero, 0, (1 << bits) - 1)


def search(values, bits, sym, power):
    best, chosen = None, None
    for step in range(81):
        scale, zero = fit(values, bits, sym, 1.0 - step / 100.0)
        error = np.sum(np.abs((codes_of(values, scale, zero, bits) - zero) * scale - values) ** power)
        if best is None or error < best:
            best, chosen = error, (scale, zero)
    return chosen


def parameters(values, case):
    if case["mse"] > 0:
        return search(values, case["bits"], case["sym"], case["mse"])
    return fit(values, case["bits"], case["sym"])


# ---- GPTQ ----------------------------------------------------------------------------------------------------------------

def order_of(energy, case, group):
    k = len(energy)
    if case["order"] == "none":
        return np.arange(k)
    if case["order"] == "full":
        return np.argsort(-energy, kind="stable")
    whole = k // group
    groups = np.argsort([-energy[g * group:(g + 1) * group].max() for g in range(whole)], kind="stable")
    parts = [g * group + np.argsort(-energy[g * group:(g + 1) * group], kind="stable") for g in groups]
    tail = np.arange(whole * group, k)
    parts.append(tail[np.argsort(-energy[tail], kind="stable")])
    return np.concatenate(parts).astype(int)


def gptq(w32, h, case):
    w = w32.astype(np.float64)
    n, k = w.shape
    group = case["group"] or k
    groups = -(-k // group)
    energy = np.diag(h).copy()
    live = energy > 0
    order = order_of(energy, case, group)
    dynamic_full = case["order"] == "full" and not case["static"]
    group_of = np.arange(k) // group if dynamic_full else order // group

    scales, zeros = np.zeros((n, groups)), np.zeros((n, groups), int)
    if case["static"]:
        for r in range(n):
            for g in range(groups):
                scales[r, g], zeros[r, g] = parameters(w[r, g * group:(g + 1) * group], case)

    damped = h + np.diag(np.where(live, case["damp"] * energy[live].mean(), 1.0))
    damped = damped[order][:, order]
    inverse = np.linalg.inv(damped)
    u = np.linalg.cholesky((inverse + inverse.T) / 2).T

    work, codes = w[:, order].copy(), np.zeros((n, k), int)
    for i in range(k):
        g = group_of[i]
        if not case["static"] and (i == 0 or group_of[i - 1] != g):
            members = np.flatnonzero(group_of == g)
            for r in range(n):
                scales[r, g], zeros[r, g] = parameters(work[r, members], case)
        q = codes_of(work[:, i], scales[:, g], zeros[:, g], case["bits"])
        codes[:, order[i]] = q
        error = (work[:, i] - (q - zeros[:, g]) * scales[:, g]) / u[i, i]
        work[:, i:] -= np.outer(error, u[i, i:])
    g_idx = np.zeros(k, int)
    g_idx[order] = group_of
    final = (codes - zeros[:, g_idx]) * scales[:, g_idx]
    return codes, scales, zeros, g_idx, final


def nearest(w32, case):
    w = w32.astype(np.float64)
    n, k = w.shape
    group = case["group"] or k
    out = np.zeros((n, k))
    for r in range(n):
        for b in range(0, k, group):
            s, z = fit(w[r, b:b + group], case["bits"], case["sym"])
            out[r, b:b + group] = (codes_of(w[r, b:b + group], s, z, case["bits"]) - z) * s
    return out


def output_loss(w, q, x):
    d = (w - q) @ x.T
    return float((d * d).sum())


def gptq_cases():
    base = dict(n=24, k=128, tokens=200, bits=4, group=32, sym=True, order="none", static=False, damp=0.01, mse=0.0, block=128,
                dead=[])
    for i, change in enumerate([
            dict(), dict(block=16), dict(block=48), dict(group=0), dict(group=64, block=40), dict(sym=False), dict(bits=8),
            dict(order="group"), dict(order="full"), dict(order="full", static=True), dict(static=True, sym=False),
            dict(k=176, group=32, order="group", block=64), dict(k=176, group=64, sym=False, order="full"),
            dict(dead=[3, 40, 41, 127]), dict(dead=[3, 40], order="full", static=True),
            dict(mse=2.4), dict(mse=2.4, order="full", static=True, sym=False), dict(mse=2.0, group=0),
            dict(tokens=40, damp=0.1, order="group"), dict(k=300, n=8, group=128, block=128), dict(k=70, n=9, group=32, sym=False)]):
        yield dict(base, seed=1000 + i, **change)


# ---- AWQ -----------------------------------------------------------------------------------------------------------------

def awq_round(w, s, group, bits, sym):
    """Q(W s) / s in float32, as a checkpoint would hold it."""
    scaled = (w * s).astype(F)
    out = np.zeros_like(scaled, np.float64)
    for r in range(w.shape[0]):
        for b in range(0, w.shape[1], group):
            v = scaled[r, b:b + group].astype(np.float64)
            scale, zero = fit(v, bits, sym)
            out[r, b:b + group] = (codes_of(v, scale, zero, bits) - zero) * scale
    return out / s


def awq(matrices, x, case):
    w = np.concatenate(matrices)
    k = w.shape[1]
    group = case["group"] or k
    statistic = np.abs(x).mean(axis=0)
    share = np.zeros(w.shape)
    for b in range(0, k, group):
        part = np.abs(w[:, b:b + group]).astype(np.float64)
        share[:, b:b + group] = part / np.maximum(part.max(axis=1, keepdims=True), 1e-30)
    weight = share.mean(axis=0)
    if case["tie"]:
        tie = np.array(case["tie"])
        statistic = np.array([statistic[tie == tie[c]].mean() for c in range(k)])
        weight = np.array([weight[tie == tie[c]].mean() for c in range(k)])
    live = statistic > 0
    statistic = np.where(live, np.maximum(statistic / statistic[live].mean(), 1e-4), 1.0)
    weight = np.maximum(weight, 1e-4)

    def loss(s):
        return output_loss(w, awq_round(w, s, group, case["bits"], case["sym"]), x)

    best = (loss(np.ones(k, F)), -1.0, np.ones(k, F))
    plain = best[0]
    families = [[(i / case["points"], 0.0) for i in range(1, case["points"] + 1)]]
    if case["duo"]:
        families.append([(i / case["points"], 1.0 - i / case["points"]) for i in range(case["points"])])
    for ratio, power in sum(families, []):
        s = statistic ** ratio / weight ** power
        s = s / np.sqrt(s[live].max() * s[live].min())
        s = np.where(live, np.clip(s, 1 / 256, 256), 1.0).astype(np.float16).astype(F)
        here = loss(s)
        if here < best[0]:
            best = (here, ratio, s)
    return plain, best


def clip_of(w, x, case):
    """Kept share of the largest weight, per row and group, in twentieths."""
    n, k = w.shape
    group = case["group"] or k
    kept = []
    for r in range(n):
        for b in range(0, k, group):
            v = w[r, b:b + group].astype(np.float64)
            reference = x[:, b:b + group] @ v
            errors = []
            for step in range(10):
                limit = np.abs(v).max() * (1 - step / 20)
                c = np.clip(v, -limit, limit)
                s, z = fit(c, case["bits"], case["sym"])
                q = (codes_of(c, s, z, case["bits"]) - z) * s
                errors.append(((reference - x[:, b:b + group] @ q) ** 2).sum())
            kept.append(20 - int(np.argmin(errors)))
    return kept


def awq_cases():
    base = dict(rows=[16, 8], k=128, tokens=200, bits=4, group=32, sym=False, points=20, duo=True, tie=[], dead=[])
    for i, change in enumerate([
            dict(), dict(sym=True), dict(duo=False), dict(group=0), dict(bits=8), dict(dead=[0, 5, 77]),
            dict(tie=[(c // 64) * 64 + c % 16 for c in range(128)], dead=[1]), dict(k=80, rows=[12], group=32, points=7),
            dict(k=600, rows=[3], group=64, tokens=1)]):
        yield dict(base, seed=2000 + i, **change)


# ---- fixtures ------------------------------------------------------------------------------------------------------------

def half_bits(a):
    return "".join("%04x" % v for v in np.asarray(a, np.float64).astype(np.float16).view(np.uint16).ravel())


def main(folder):
    out = []
    for case in gptq_cases():
        w, x = make_inputs(case["seed"], case["n"], case["k"], case["tokens"], case["dead"])
        codes, scales, zeros, g_idx, final = gptq(w, x.T @ x, case)
        expected = dict(codes=bytes(codes.astype(np.uint8).ravel()).hex(), scales=half_bits(scales),
                        zeros=bytes(zeros.astype(np.uint8).ravel()).hex(), g_idx=g_idx.tolist(),
                        loss=output_loss(w, final, x) / case["n"], rtn_loss=output_loss(w, nearest(w, case), x) / case["n"])
        out.append(dict(case, expected=expected))
        print("gptq", case["seed"], expected["loss"] / expected["rtn_loss"])
    with open(folder + "/quant_gptq.json", "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in out) + "\n]\n")
    out = []
    for case in awq_cases():
        w, x = make_inputs(case["seed"], sum(case["rows"]), case["k"], case["tokens"], case["dead"])
        plain, (best, ratio, s) = awq(np.split(w, np.cumsum(case["rows"])[:-1]), x, case)
        expected = dict(plain=plain, loss=best, ratio=ratio, s=half_bits(s), kept=clip_of(w, x, case))
        out.append(dict(case, expected=expected))
        print("awq", case["seed"], best / plain, ratio)
    with open(folder + "/quant_awq.json", "w") as f:
        f.write("[\n" + ",\n".join(json.dumps(c, separators=(",", ":")) for c in out) + "\n]\n")


if __name__ == "__main__":
    main(sys.argv[1])
