"""Do other programs read what nibble writes as nibble means it?  Every form through the loaders that are installed.

    python3 formats.py NIBBLE_PROGRAM [--limit 6] [--only exports,compressed,decompressor,gptqmodel,gguf]     (numpy, torch, transformers, Pillow; compressed-tensors, gptqmodel and gguf if there)

The demo model is quantized into every form and exported by nibble to float32, which is what it means.  Then

  transformers        loads exported bf16 and f32 checkpoints, of both layouts of names and padded for four GPUs
  transformers with compressed-tensors   loads int4 and int8, mixed bits, tower and head with codes
  compressed-tensors  its own decompressor on every matrix, asymmetric ones and embeddings too: bit for bit
  gptqmodel           loads GPTQ v1 and v2, dynamic overrides, AWQ; its torch kernels on a CPU
  gguf                its reader and dequantizer on every tensor of the pair, bit for bit (Q4_1 within a float16 rounding), and the
                      tokenizer against tokenizer.json

Logits of a loaded model must be within a mean KL divergence of 1e-4 of those of the float32 export on held-out chats with pictures, and
`nibble eval` by its reference kernels must tell the same divergence from the original within 5 % or 2e-5 nats (judge.py; the fast
kernels are within 5 % on two dozen chats, a few chats are too few to say so).  A loader that is not installed, or that is known to
refuse a form, is a line that says SKIP.
"""
import argparse
import importlib
import importlib.metadata
import json
import os
import tempfile

import common

common.need("numpy", "torch", "transformers", "PIL")

import numpy as np  # noqa: E402
import read_quantized  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from judge import KL_NATS, KL_SHARE, Encoder, float_tensor, log_probabilities  # noqa: E402
from transformers import Qwen2VLForConditionalGeneration  # noqa: E402

os.environ["CUDA_VISIBLE_DEVICES"] = ""
LIMIT = 1e-4

FORMS = {  # name: flags of nibble quantize
    "awq": "--method awq",
    "gptq": "--method gptq",
    "gptq8": "--method rtn --format gptq --bits 8",
    "gptq_v2": "--method gptq --format gptq_v2",
    "both_awq": "--method awq+gptq",
    "both_gptq": "--method awq+gptq --format gptq",
    "dynamic": "--method gptq --set down_proj=8:64 --keep layers\\.0\\.self_attn\\.q",
    "ct4": "--method gptq --format compressed-tensors",
    "ct8": "--method rtn --bits 8 -g -1 --format compressed-tensors",
    "ct_asym": "--method awq --format compressed-tensors --asym",
    "ct_mixed": "--method awq --format compressed-tensors --set layers\\.[05]\\..*(down|o)_proj=8:64 --keep layers\\.0\\.self_attn\\.q",
    "ct_tower": "--method gptq --vision int4 --lm-head int8",
    "ct_all": "--method gptq --vision int8 --lm-head int8 --embeddings int8",
}


class Skip(Exception):
    pass


def version(package):
    try:
        importlib.import_module(package)
        return importlib.metadata.version(package.replace("_", "-"))
    except ImportError as why:
        raise Skip(f"{package} is not installed ({why})")


def canonical(name):
    for old, new in (("model.language_model.", "model."), ("model.visual.", "visual.")):
        if name.startswith(old):
            return new + name[len(old):]
    return name


class Bench:
    """The conversations, and what nibble means by each form."""

    def __init__(self, program, work, limit):
        self.program, self.work, self.limit = program, work, limit
        encode = Encoder()
        with open(common.HOLDOUT) as f:
            self.chats = [encode(json.loads(line)["messages"])[0] for _, line in zip(range(limit), f)]
        if int(transformers.__version__.split(".")[0]) >= 5:  # which wants to be told where the pictures are
            for inputs in self.chats:
                inputs["mm_token_type_ids"] = (inputs["input_ids"] == encode.pad).int()
        self.rows, self.wrong, self.skipped = [], 0, []
        self.original = self.logits(self.load(common.ORIGINAL))

    def path(self, *parts):
        """Within the work folder; a form is made when it is first asked for."""
        folder = os.path.join(self.work, parts[0])
        if parts[0] in FORMS and not os.path.exists(folder):
            common.quantize(self.program, folder, FORMS[parts[0]])
        return os.path.join(folder, *parts[1:])

    def load(self, folder, **more):
        return Qwen2VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32, **more).eval()

    def logits(self, model):
        return [log_probabilities(model, dict(inputs)) for inputs in self.chats]

    @staticmethod
    def kl(p, q):
        return float(torch.cat([(a.exp() * (a - b)).sum(-1) for a, b in zip(p, q)]).mean())

    def export(self, name, to, *flags):
        folder = self.path(f"{name}-{to}" + "".join(flags).replace("--", "-"))
        if not os.path.exists(folder):
            common.nibble(self.program, "export", self.path(name), folder, "--format", to, *flags)
        return folder

    def meaning(self, name):
        """Float32 tensors of a form as nibble exports them, by their published names."""
        return {n: float_tensor(a, t) for n, (a, t) in read_quantized.read_all(self.export(name, "f32")).items()}

    def told(self, name):
        folder = self.path(name)
        os.environ["NIBBLE_ISA"] = "ref"
        said = common.nibble(self.program, "eval", folder, "--ref", common.ORIGINAL, "--data", common.HOLDOUT, "--limit", self.limit,
                             "--kv-cache-dtype", "f32", json_out=True)["models"][0]
        del os.environ["NIBBLE_ISA"]
        return said["chats"]["all"]["kl_mean"]

    def report(self, loader, form, good, *cells):
        self.wrong += not good
        self.rows.append([f"{loader}, {form}", *cells, "yes" if good else "NO"])
        print(f"{loader}, {form}: {' '.join(map(str, cells))} {'agrees' if good else 'DIFFERS'}", flush=True)

    def check_logits(self, loader, form, got):
        """Of a foreign loader, against the float32 export run by transformers, and against what nibble eval says."""
        own = self.logits(self.load(self.export(form, "f32")))
        near, theirs, ours = self.kl(own, got), self.kl(self.original, got), self.told(form)
        good = near < LIMIT and abs(ours - theirs) <= max(KL_SHARE * theirs, KL_NATS + near)
        self.report(loader, form, good, f"{near:.2g}", f"{theirs:.4g}", f"{ours:.4g}")

    def run(self, title, work, *arguments):
        try:
            work(self, *arguments)
        except Skip as why:
            self.skipped.append(f"SKIP {title}: {why}")
            print(self.skipped[-1], flush=True)


def exported(b):
    """Floats need no library but transformers."""
    for name in ("gptq", "ct_all"):
        b.check_logits("transformers, f32 export, new names", name, b.logits(b.load(b.export(name, "f32", "--layout", "new"))))
    b.check_logits("transformers, f32 export padded for 4 GPUs of 3", "gptq", b.logits(b.load(b.export("gptq", "f32", "--pad-for-tp", "12"))))
    own = b.logits(b.load(b.export("gptq", "f32")))
    near = b.kl(own, b.logits(b.load(b.export("gptq", "bf16"))))
    b.report("transformers, bf16 export (rounds)", "gptq", near < 1e-3, f"{near:.2g}", "", "")


def compressed(b, form):
    version("compressed_tensors")
    known = {"ct_asym": "transformers 4.57 and 5.24 build asymmetric modules without packing their zero points (5.17 packs them)",
             "ct_all": "transformers 5 cannot initialise an embedding that has no weight"}
    try:
        model = b.load(b.path(form))
    except (RuntimeError, AttributeError, ValueError) as why:
        if known.get(form):
            raise Skip(f"{known[form]}; it said: {str(why).splitlines()[0][:120]}")
        raise
    b.check_logits("transformers + compressed-tensors", form, b.logits(model))


def decompressor(b):
    """Every matrix through the library's own code, whatever transformers makes of the checkpoint."""
    version("compressed_tensors")
    from compressed_tensors.compressors.pack_quantized import PackedQuantizationCompressor
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    for form in (f for f in FORMS if f.startswith("ct")):
        with open(b.path(form, "config.json")) as f:
            groups = json.load(f)["quantization_config"]["config_groups"].values()
        tensors, meaning, equal, count = read_quantized.read_all(b.path(form)), b.meaning(form), 0, 0
        for name in (n[:-len(".weight_packed")] for n in tensors if n.endswith(".weight_packed")):
            own = {t.rpartition(".")[2]: torch.from_numpy(a.copy()) for t, (a, _) in tensors.items() if t.rpartition(".")[0] == name}
            own["weight_scale"] = own["weight_scale"].float()
            scheme = fitting(groups, own)
            scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**scheme["weights"]))
            made = PackedQuantizationCompressor.decompress(own, scheme)["weight"].float()
            equal += torch.equal(made, meaning[name + ".weight"])
            count += 1
        b.report("compressed-tensors' decompressor", form, equal == count and count > 0, f"{equal} of {count} equal", "", "")


def fitting(groups, tensors):
    """The group whose sizes a matrix has."""
    n, k = tensors["weight_shape"].tolist()
    for group in groups:
        w = group["weights"]
        size = w["group_size"] or k
        if tensors["weight_packed"].shape[1] == -(-k * w["num_bits"] // 32) and tensors["weight_scale"].shape[1] == -(-k // size) and \
                w["symmetric"] != ("weight_zero_point" in tensors):
            return group
    raise SystemExit(f"no group fits a matrix of {n} x {k}")


def gptqmodel(b, form):
    version("gptqmodel")
    from gptqmodel import BACKEND, GPTQModel
    from gptqmodel.quantization.awq.utils.packing_utils import dequantize_gemm
    folder = b.path(form + "-new")
    if not os.path.exists(folder):
        common.nibble(b.program, "export", b.path(form), folder, "--layout", "new")
    model = GPTQModel.load(folder, device="cpu", backend=BACKEND.TORCH, dtype=torch.float16).model
    meaning, worst, count = b.meaning(form), 0.0, 0
    for name, module in model.named_modules():
        if hasattr(module, "qweight"):
            made = module.dequantize_weight() if hasattr(module, "dequantize_weight") else \
                dequantize_gemm(module.qweight, module.qzeros, module.scales, module.bits, module.group_size)
            right, made = meaning[canonical(name) + ".weight"], made.float().T
            worst, count = max(worst, float((made - right).abs().max() / right.abs().max())), count + 1
    b.report("gptqmodel, weights", form, count > 0 and worst < 2 ** -10, f"{worst:.2g} of the largest, {count} matrices", "", "")
    b.check_logits("gptqmodel, logits", form, b.logits(model))


def gguf_names(name):
    """A GGUF tensor of the language model, as published checkpoints spell it."""
    fixed = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head"}
    inner = {"attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj",
             "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj", "attn_norm": "input_layernorm",
             "ffn_norm": "post_attention_layernorm"}
    tower = {"attn_out": "attn.proj", "ffn_up": "mlp.fc1", "ffn_down": "mlp.fc2", "ln1": "norm1", "ln2": "norm2", "attn_q": "attn.qkv",
             "attn_k": "attn.qkv", "attn_v": "attn.qkv"}
    merger = {"v.post_ln": "visual.merger.ln_q", "mm.0": "visual.merger.mlp.0", "mm.2": "visual.merger.mlp.2"}
    stem, _, last = name.rpartition(".")
    parts = stem.split(".")
    if parts[0] == "blk":
        return f"model.layers.{parts[1]}.{inner[parts[2]]}.{last}", None
    if parts[:2] == ["v", "blk"]:
        return f"visual.blocks.{parts[2]}.{tower[parts[3]]}.{last}", {"attn_q": 0, "attn_k": 1, "attn_v": 2}.get(parts[3])
    return f"{ {**fixed, **merger}[stem]}.{last}", None


def gguf_pair(b, form):
    version("gguf")
    import gguf
    folder, meaning, count, equal, seen = b.export(form, "gguf"), b.meaning(form), 0, 0, set()
    for file in sorted(f for f in os.listdir(folder) if f.endswith(".gguf")):
        reader = gguf.GGUFReader(os.path.join(folder, file))
        if not file.startswith("mmproj"):
            check_tokenizer(reader, folder)
        for t in reader.tensors:
            values = torch.from_numpy(np.array(gguf.quants.dequantize(t.data, t.tensor_type), dtype=np.float32))
            if t.name.startswith("v.patch_embd.weight"):
                frame = int(t.name[len("v.patch_embd.weight."):] or 0)
                right = meaning["visual.patch_embed.proj.weight"][:, :, frame]
            else:
                name, third = gguf_names(t.name)
                seen.add(name)
                right = meaning[name]
                right = right if third is None else right.chunk(3)[third]
            values = values.reshape(right.shape)
            close = torch.equal(values, right.half().float() if t.tensor_type == gguf.GGMLQuantizationType.F16 else right)
            if t.tensor_type == gguf.GGMLQuantizationType.Q4_1:
                close = bool((values - right).abs().max() <= right.abs().max() * 2 ** -9)
            count, equal = count + 1, equal + close
    missing = set(meaning) - seen - {"visual.patch_embed.proj.weight"}
    b.report("gguf reader", form, equal == count and not missing, f"{equal} of {count} equal, {len(missing)} missing", "", "")


def check_tokenizer(reader, folder):
    with open(os.path.join(folder, "tokenizer.json")) as f:
        own = json.load(f)
    tokens, fields = reader.fields["tokenizer.ggml.tokens"].contents(), reader.fields
    for text, number in own["model"]["vocab"].items():
        assert tokens[number] == text, (number, text, tokens[number])
    for added in own["added_tokens"]:
        assert tokens[added["id"]] == added["content"], added
    merges = [m if isinstance(m, str) else " ".join(m) for m in own["model"]["merges"]]
    assert fields["tokenizer.ggml.merges"].contents() == merges
    with open(os.path.join(folder, "chat_template.json")) as f:
        assert fields["tokenizer.chat_template"].contents() == json.load(f)["chat_template"]
    with open(os.path.join(folder, "config.json")) as f:
        config = json.load(f)
    assert fields["qwen2vl.rope.dimension_sections"].contents() == config["rope_scaling"]["mrope_section"] + [0]
    assert fields["qwen2vl.feed_forward_length"].contents() == config["intermediate_size"]


def main():
    a = argparse.ArgumentParser()
    a.add_argument("program")
    a.add_argument("--limit", type=int, default=6)
    a.add_argument("--only", default="exports,compressed,decompressor,gptqmodel,gguf")
    o = a.parse_args()
    found = [common.versions()]
    for package in ("compressed_tensors", "gptqmodel", "gguf"):
        try:
            found.append(f"{package} {version(package)}")
        except Skip as why:
            found.append(str(why))
    print("; ".join(found), flush=True)
    with tempfile.TemporaryDirectory() as work:
        b = Bench(o.program, work, o.limit)
        work = {"exports": (exported, [()]), "compressed": (compressed, ["ct4", "ct8", "ct_tower", "ct_asym", "ct_all"]),
                "decompressor": (decompressor, [()]), "gptqmodel": (gptqmodel, ["gptq", "gptq8", "gptq_v2", "dynamic", "awq", "both_awq", "both_gptq"]),
                "gguf": (gguf_pair, ["gptq", "gptq8", "awq", "ct_tower", "ct_all"])}
        for name in o.only.split(","):
            check, forms = work[name]
            for form in forms:
                b.run(f"{name}, {form}" if form else name, check, *([form] if form else []))
        common.table(["loader and form", "KL from nibble's meaning", "KL from the original", "as nibble eval says", "agree"], b.rows)
        for line in b.skipped:
            print(line)
        print(f"{len(b.rows) - b.wrong} of {len(b.rows)} comparisons agree, {len(b.skipped)} skipped")
        return 0 if b.wrong == 0 else 1


if __name__ == "__main__":
    raise SystemExit(main())
