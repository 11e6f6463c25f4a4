"""Conversations rendered by the published chat template through Jinja2, for tests/unit/test_text_chat.c.

    python template_oracle.py DATA OUT.json

Each row has messages, add_generation_prompt, add_vision_id, the prompt, and its ids with the published and the demo tokenizer.
The template is the demo model's chat_template.json, which is the published one. No text holds a control token: the library
would turn it into its id, nibble on purpose does not.
"""
import json
import pathlib
import random
import sys

from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

ROOT = pathlib.Path(__file__).resolve().parents[2]
TEXTS = ["", "Hi", "What is in the picture?", "\nstarts with a break", "  two spaces ", "\n\n", " \n x", "ends with a break\n", "it's 12 o'clock", "\u4f60\u597d",
         "e\u0301t\u00e9", "\u0301x", "<image> {{ x }} {% y %}", "a\tb", "\U0001f600", "1", "!", "Picture 1: ", "<tool_call>"]


def part(r):
    kind = r.randrange(10)
    if kind < 4:
        return r.choice([{"type": "text", "text": r.choice(TEXTS)}, {"text": r.choice(TEXTS)}])
    if kind < 8:
        return r.choice([{"type": "image"}, {"type": "image", "image": "a.png"}, {"image": "file:///a.png", "max_pixels": 50176},
                         {"type": "image_url", "image_url": {"url": "https://example.com/a.png", "detail": "low"}}, {"image_url": "data:image;base64,AAAA"},
                         {"type": "text", "text": "not shown", "image": "b.png"}])
    return r.choice([{"type": "video"}, {"type": "video", "video": "v.mp4"}, {"video": ["f0.png", "f1.png"]}, {"type": "video", "text": "not shown"}])


def message(r, role):
    made = {"role": role}
    kind = r.randrange(12)
    if kind < 5:
        made["content"] = r.choice(TEXTS)
    elif kind < 11:
        made["content"] = [part(r) for _ in range(r.randrange(5))]
    return made                             # else: no content at all


def main():
    data, out = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
    source = json.loads((ROOT / "tools/demo/model/chat_template.json").read_text())["chat_template"]
    assert source == json.loads((data / "qwen2-vl-2b-instruct-awq/chat_template.json").read_text())["chat_template"]
    template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(source)
    tokenizers = {"ids": Tokenizer.from_file(str(data / "qwen2-vl-2b-instruct-awq/tokenizer.json")),
                  "demo_ids": Tokenizer.from_file(str(ROOT / "tools/demo/model/tokenizer.json"))}
    r, rows = random.Random(3), []
    for i in range(64):
        roles = (["system"] if r.random() < 0.4 else []) + [role for _ in range(r.randrange(1, 4)) for role in ("user", "assistant")]
        if r.random() < 0.5:
            roles.pop()
        if i % 8 == 7:
            roles.insert(r.randrange(len(roles) + 1), r.choice(["observer", "system", "User 2!"]))
        row = {"messages": [message(r, role) for role in roles or ["user"]], "add_generation_prompt": r.random() < 0.6, "add_vision_id": r.random() < 0.5}
        row["prompt"] = template.render(**row)
        row.update({key: t.encode(row["prompt"]).ids for key, t in tokenizers.items()})
        rows.append(row)
    out.write_text("[\n" + ",\n".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows) + "\n]\n")


if __name__ == "__main__":
    main()
