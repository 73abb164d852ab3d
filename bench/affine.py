"""Makes model/testdata/mlx: a tiny llama quantised by mlx-lm, its mlp with 8 bits
in groups of 32 and the rest with 4 bits in groups of 64, and what it computes.
Needs mlx[cpu] and mlx-lm."""
import json
import pathlib

import mlx.core as mx
import mlx.nn as nn
import mlx.utils
from mlx_lm.models import llama

out = pathlib.Path(__file__).parent.parent / "model/testdata/mlx"
out.mkdir(parents=True, exist_ok=True)
config = {
    "model_type": "llama", "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "vocab_size": 96, "rms_norm_eps": 1e-5, "tie_word_embeddings": False, "max_position_embeddings": 64,
    "rope_theta": 10000.0,
}
mx.random.seed(5)
model = llama.Model(llama.ModelArgs.from_dict(config))
model.update(mlx.utils.tree_map(lambda p: mx.random.normal(p.shape) * (0.5 if p.ndim == 2 else 0.1) + (1 if p.ndim == 1 else 0), model.parameters()))
model.set_dtype(mx.float16)
quantization = {"group_size": 64, "bits": 4}


def choose(path, module):
    if not hasattr(module, "to_quantized"):
        return False
    if ".mlp." in path:
        quantization[path] = {"group_size": 32, "bits": 8}
        return quantization[path]
    return True


nn.quantize(model, group_size=64, bits=4, class_predicate=choose)
config["quantization"] = config["quantization_config"] = quantization
mx.save_safetensors(str(out / "model.safetensors"), dict(mlx.utils.tree_flatten(model.parameters())))
(out / "config.json").write_text(json.dumps(config, indent=1) + "\n")

tokens = [(7 * i * i + 3) % 96 for i in range(12)]
model.set_dtype(mx.float32)  # scales and norms, exactly
logits = model(mx.array([tokens]))[0]
(out / "logits.json").write_text(json.dumps({"tokens": tokens, "logits": logits.tolist()}) + "\n")
