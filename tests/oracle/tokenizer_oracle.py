"""What the tokenizers library says about texts, for tests/unit/test_text_tokenizer.c.

    python tokenizer_oracle.py expected DATA OUT.json   counts and hashes of ids (texts themselves are not stored)
    python tokenizer_oracle.py classes                  character ranges that runtime/text lists beside utf8proc's tables

DATA is the folder of the shared test data; the demo tokenizer is taken from this tree. Hashes are FNV-1a 64: over ids as
little-endian int32, or over bytes. The random strings come from random_string(), which the C test repeats.
"""
import json
import pathlib
import struct
import sys
import unicodedata

from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers

ROOT = pathlib.Path(__file__).resolve().parents[2]
PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")
TEXTS = ["text/sanguo_yanyi.txt", "text/tinyshakespeare.txt", "text/wiki_demo.txt", "text/wikitext-2.valid.txt"]
# Pools that random_string draws from: ranges of code points, then fixed fragments.
RANGES = [(0x20, 0x7E), (0x61, 0x7A), (0x09, 0x0D), (0x80, 0x24F), (0x300, 0x36F), (0x370, 0x5FF), (0x600, 0x6FF), (0x900, 0xDFF),
          (0xF00, 0xFFF), (0x1100, 0x11FF), (0x1E00, 0x1FFF), (0x2000, 0x206F), (0x2100, 0x214F), (0x3000, 0x30FF), (0x4E00, 0x9FFF),
          (0xA000, 0xABFF), (0xAC00, 0xD7A3), (0xE000, 0xFFFF), (0x10000, 0x11FFF), (0x1D100, 0x1D7FF), (0x1F300, 0x1FAFF), (0x20000, 0x2FFFF)]
FRAGMENTS = ["'s", "'LL", "'Re", "'\u017f", "'m", " ", "  ", "\n", "\r\n", " \n", "\u00a0", "\u3000", "1", "23", "the", " of", "ing", "...", "\u0301",
             "<|im_end|>", "<|image_pad|>", "<|im", "|>"]
SMALL = ["", " ", "  ", "\n", "\r\n\r\n", "a", "Hello, world!", "  two", "a  b", "a \n b", "x\n\n\ny", "\t\tint x = 10;", "1234567890", " 2",
         "it's I'LL we've they'RE 'tis 'S o'clock", "it'\u017f", "it'\u017fa'\u017f1", "caf\u00e9 cafe\u0301", "\u212b\u2126", "\u1100\u1161\u11a8", "\ud55c\uad6d\uc5b4",
         "\u4f60\u597d\uff0c\u4e16\u754c\u3002", "\u3053\u3093\u306b\u3061\u306f", "\U0001f600\U0001f469\u200d\U0001f4bb", "a\u00a0b\u3000c\u2003\u2003d", "\u0085x\u0085",
         "\u0e2a\u0e27\u0e31\u0e2a\u0e14\u0e35", "\u0928\u092e\u0938\u094d\u0924\u0947", "\u0627\u0644\u0639\u0631\u0628\u064a\u0629", "<|im_start|>user\n<|im_end|>",
         "<|vision_start|><|image_pad|><|vision_end|>x", "<|im_start", "<<|im_end|>>", "$x^2$ == y!!\n\n", "http://example.com/a?b=c&d", "e\u0301\u0327 e\u0327\u0301", "\u0344\u0f73\u0f75",
         "\u1e9b\u0323", "\ufb01\ufb00", "a" * 70, "ab" * 40, "-" * 100, " " * 40 + "x", "\U00011935\U00011930"]


def fnv(data, h=0xCBF29CE484222325):
    for b in data:
        h = (h ^ b) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return h


def ids_hash(ids):
    return f"{fnv(struct.pack(f'<{len(ids)}i', *ids)):016x}"


class Random:                               # unit_random of tests/unit/unit.h
    def __init__(self, seed):
        self.state = seed

    def below(self, n):
        self.state = (self.state * 6364136223846793005 + 1442695040888963407) & 0xFFFFFFFFFFFFFFFF
        return (self.state >> 33) % n


def random_string(r):
    out = ""
    for _ in range(1 + r.below(24)):
        pool = r.below(len(RANGES) + 12)
        if pool < len(RANGES):
            low, high = RANGES[pool]
            out += chr(low + r.below(high - low + 1))
        else:
            out += FRAGMENTS[r.below(len(FRAGMENTS))]
    return out


def cuts(split, text):
    return bytes(len(piece.encode()) for piece, _ in split.pre_tokenize_str(text))


def seconds():
    """Characters of combining class 0 that compose with what is before them; not Hangul."""
    found = set()
    for c in range(0x110000):
        d = unicodedata.decomposition(chr(c)).split()
        if len(d) == 2 and d[0][0] != "<" and unicodedata.normalize("NFC", chr(c)) == chr(c) and not unicodedata.combining(chr(int(d[1], 16))):
            found.add(int(d[1], 16))
    return found


def code_points(block):
    return [c for c in range(block * 0x1000, (block + 1) * 0x1000) if not 0xD800 <= c < 0xE000]


def expected(data, out):
    published = Tokenizer.from_file(str(data / "qwen2-vl-2b-instruct-awq/tokenizer.json"))
    demo = Tokenizer.from_file(str(ROOT / "tools/demo/model/tokenizer.json"))
    both = {"published": published, "demo": demo}
    split, nfc = pre_tokenizers.Split(Regex(PATTERN), "isolated"), normalizers.NFC()
    made = {"texts": [], "small": [], "random": {"seed": 7, "strings": []}, "compositions": [], "split_blocks": [], "nfc_blocks": []}
    for name in TEXTS:
        text = (data / name).read_bytes().decode()
        row = {"text": name, "bytes": len(text.encode())}
        for key, t in both.items():
            ids = t.encode(text).ids
            row[key] = [len(ids), ids_hash(ids)]
        made["texts"].append(row)
    for text in SMALL:
        made["small"].append({"text": text, "cuts": list(cuts(split, text)), **{key: t.encode(text).ids for key, t in both.items()}})
    r = Random(made["random"]["seed"])
    for _ in range(600):
        text = random_string(r)
        made["random"]["strings"].append([f"{fnv(text.encode()):016x}"] + [ids_hash(t.encode(text).ids) for t in both.values()]
                                         + [f"{fnv(cuts(split, text)):016x}", f"{fnv(nfc.normalize_str(text).encode()):016x}"])
    for second in sorted(seconds()):            # all that compose with a starter, Hangul only in part
        for c in range(0x110000):
            d = unicodedata.decomposition(chr(c)).split()
            if len(d) == 2 and d[0][0] != "<" and int(d[1], 16) == second:
                parts = chr(int(d[0], 16)) + chr(second)
                made["compositions"].append([parts, nfc.normalize_str(parts)])
    for parts in ("\u1100\u1161", "\u1112\u1175\u11c2", "\uac00\u11a8", "\uac01\u11a8", "\u1100\u1161\u1161", "\u1100\u11a8", "\uac00\u11a7"):
        made["compositions"].append([parts, nfc.normalize_str(parts)])
    for block in range(0x110):
        h, g = fnv(b""), fnv(b"")
        for c in code_points(block):
            x = chr(c)
            h = fnv(cuts(split, f"a{x}a {x}1\n{x}"), h)
            g = fnv(nfc.normalize_str(f"e{x}\u0334\u0301{x}").encode(), g)
        made["split_blocks"].append(f"{h:016x}")
        made["nfc_blocks"].append(f"{g:016x}")
    lines = [f"{json.dumps(k)}: {json.dumps(v, separators=(',', ':'))}" for k, v in made.items()]
    out.write_text("{\n" + ",\n".join(lines) + "\n}\n")


def ranges(codes):
    runs = []
    for c in sorted(codes):
        if runs and runs[-1][1] == c - 1:
            runs[-1][1] = c
        else:
            runs.append([c, c])
    return " ".join(f"{a:04X}-{b:04X}" for a, b in runs)


def classes():
    every = [c for c in range(0x110000) if not 0xD800 <= c < 0xE000]
    for name, pattern, kinds in (("letters", r"\p{L}", "L"), ("numbers", r"\p{N}", "N")):
        split = pre_tokenizers.Split(Regex(pattern), "removed")
        print(name, "that this Python's Unicode", unicodedata.unidata_version, "lacks:",
              ranges(c for c in every if not split.pre_tokenize_str(chr(c)) and unicodedata.category(chr(c))[0] != kinds))
    nfc = normalizers.NFC()
    print("marks that are inert in NFC:", ranges(
        c for c in every if unicodedata.combining(chr(c)) > 1 and nfc.normalize_str(f"#{chr(c)}\u0334")[1] != "\u0334"))
    print("starters that compose with what is before them:", ranges(seconds() | set(range(0x1161, 0x1176)) | set(range(0x11A8, 0x11C3))))


if __name__ == "__main__":
    if sys.argv[1] == "classes":
        classes()
    else:
        expected(pathlib.Path(sys.argv[2]), pathlib.Path(sys.argv[3]))
