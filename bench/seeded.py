"""Models and adapters with random values that are the same everywhere, written with the standard library alone."""

import json
import math
import random
import shutil
import struct
from array import array
from pathlib import Path

CHUNK = 1 << 20  # bytes held at a time


def smollm2_135m(folder, tokenizer, dtype="float32"):
    """Writes a Llama with the shapes of SmolLM2-135M in float32 or bfloat16, and the tokenizer of another folder."""
    hidden, kv, inner, vocab, layers = 576, 192, 1536, 49152, 30
    folder.mkdir()
    config = {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": hidden, "intermediate_size": inner,
        "num_hidden_layers": layers, "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": vocab,
        "max_position_embeddings": 8192, "rope_theta": 100000, "rms_norm_eps": 1e-5, "hidden_act": "silu",
        "tie_word_embeddings": True, "bos_token_id": 0, "eos_token_id": 1, "torch_dtype": dtype,
    }
    (folder / "config.json").write_text(json.dumps(config, indent=1))
    for name in "tokenizer.json", "tokenizer_config.json":
        shutil.copy(tokenizer / name, folder)
    shapes = {"model.embed_tokens.weight": [vocab, hidden], "model.norm.weight": [hidden]}
    for i in range(layers):
        shapes |= {f"model.layers.{i}.{name}.weight": shape for name, shape in {
            "input_layernorm": [hidden], "post_attention_layernorm": [hidden],
            "self_attn.q_proj": [hidden, hidden], "self_attn.k_proj": [kv, hidden], "self_attn.v_proj": [kv, hidden],
            "self_attn.o_proj": [hidden, hidden],
            "mlp.gate_proj": [inner, hidden], "mlp.up_proj": [inner, hidden], "mlp.down_proj": [hidden, inner]}.items()}
    rng = random.Random(0)
    write(folder / "model.safetensors", shapes, lambda name, shape: weights(rng, shape, dtype) if len(shape) == 2 else ones(shape, dtype), dtype)


def adapter(folder, model, rank, alpha):
    """Writes PEFT's first adapter of all linear layers: A uniform within 1/sqrt(in), B zero."""
    shapes = {}
    for name, (out, width) in sorted(linears(model).items()):
        key = f"base_model.model.{name.removesuffix('.weight')}"
        shapes |= {f"{key}.lora_A.weight": [rank, width], f"{key}.lora_B.weight": [out, rank]}
    targets = sorted({key.split(".")[-3] for key in shapes})
    folder.mkdir()
    (folder / "adapter_config.json").write_text(json.dumps({
        "peft_type": "LORA", "task_type": "CAUSAL_LM", "base_model_name_or_path": str(model), "r": rank, "lora_alpha": alpha,
        "lora_dropout": 0.0, "bias": "none", "target_modules": targets}))
    rng = random.Random(1)
    write(folder / "adapter_model.safetensors", shapes, lambda name, shape: uniform(rng, shape) if ".lora_A." in name else zeros(shape))


def linears(model):
    """Returns the shapes, [out, in], of the linear layers within the blocks of a model."""
    return {name: shape for name, shape in tensors(model).items() if ".layers." in name and len(shape) == 2}


def count(model):
    """Returns the number of weights."""
    return sum(math.prod(shape) for shape in tensors(model).values())


def tensors(model):
    shapes = {}
    for path in sorted(model.glob("*.safetensors")):
        with open(path, "rb") as f:
            header = json.loads(f.read(struct.unpack("<Q", f.read(8))[0]))
        shapes |= {name: t["shape"] for name, t in header.items() if name != "__metadata__"}
    return shapes


def write(path, shapes, values, dtype="float32"):
    """Writes tensors as safetensors; values(name, shape) yields a tensor's bytes in parts."""
    header, end = {"__metadata__": {"format": "pt"}}, 0
    kind, size = {"float32": ("F32", 4), "bfloat16": ("BF16", 2)}[dtype]
    for name, shape in shapes.items():
        begin, end = end, end + size * math.prod(shape)
        header[name] = {"dtype": kind, "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as f:
        f.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            f.writelines(values(name, shape))


def weights(rng, shape, dtype):
    """Values of either sign whose size is uniform in [1/64, 1/32): root mean square 0.024, near the usual 0.02.

    They are made from random bytes: sign and mantissa stay, the exponent is set. A bfloat16 is the upper half of a float32.
    """
    keep, exponent = struct.pack("<I", 0x807FFFFF), struct.pack("<f", 1 / 64)
    if dtype == "bfloat16":
        keep, exponent = keep[2:], exponent[2:]
    size = len(keep)
    left = size * math.prod(shape)
    while left:
        n = min(left, CHUNK)
        mask, fixed = (int.from_bytes(word * (n // size), "little") for word in (keep, exponent))
        yield (int.from_bytes(rng.randbytes(n), "little") & mask | fixed).to_bytes(n, "little")
        left -= n


def uniform(rng, shape):
    bound = shape[1] ** -0.5
    yield array("f", (rng.uniform(-bound, bound) for _ in range(math.prod(shape)))).tobytes()


def zeros(shape):
    yield bytes(4 * math.prod(shape))


def ones(shape, dtype):
    one = struct.pack("<f", 1)
    yield (one[2:] if dtype == "bfloat16" else one) * math.prod(shape)
