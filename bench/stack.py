"""One of graft's peers, training as its users would; bench/peers.py starts it, once for each measurement.

    python bench/stack.py data job.json       write examples of exactly job["length"] tokens
    python bench/stack.py eager job.json      transformers + PEFT
    python bench/stack.py compile job.json    the same under torch.compile
    python bench/stack.py mlx job.json        mlx-lm's own train() on the CPU

The last three print their versions and then a line when a step is over. Who reads the lines takes the time.
"""

import itertools
import json
import os
import sys
from importlib.metadata import version
from pathlib import Path

from tokenizers import Tokenizer


def write_data(job):
    """Joins texts to prompt/completion pairs, cut at the token where the completion shall start."""
    tok = Tokenizer.from_file(f"{job['model']}/tokenizer.json")
    texts = itertools.cycle(json.loads(line)["text"] for line in open(job["texts"]))
    with open(job["data"], "w") as out:
        for _ in range(job["examples"]):
            text = next(texts)
            # Some more than needed: what is cut off at the end then cannot be the end-of-sequence token.
            while len((tokens := tok.encode(text)).ids) < job["length"] + 8:
                text += " " + next(texts)
            cut = tokens.offsets[job["masked"]][0]
            print(json.dumps({"prompt": text[:cut], "completion": text[cut:]}), file=out)


def batches(job):
    """Yields a step's sequences, [batch][length] token ids, and in each the first token that is trained."""
    tok = Tokenizer.from_file(f"{job['model']}/tokenizer.json")
    ids, starts = [], []
    for line in open(job["data"]):
        pair = json.loads(line)
        prompt, full = tok.encode(pair["prompt"]).ids, tok.encode(pair["prompt"] + pair["completion"]).ids
        same = next((i for i, (p, f) in enumerate(zip(prompt, full)) if p != f), len(prompt))
        ids.append(full[: job["length"]])
        starts.append(same if job["mask"] else 1)
    for at in range(0, len(ids), job["batch"]):
        yield ids[at : at + job["batch"]], starts[at : at + job["batch"]]


def tell_versions(*packages, **more):
    print("versions", json.dumps({p: version(p) for p in packages} | more), flush=True)


def tell_step(step, loss):
    print(f"step {step}/  loss {loss:.9g}", flush=True)


def train_torch(job, compiled):
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    tell_versions("torch", "transformers", "peft", kernels=torch.backends.cpu.get_cpu_capability())
    torch.set_num_threads(job["threads"])
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
    model = PeftModel.from_pretrained(model, job["adapter"], is_trainable=True)
    model.config.use_cache = False
    model.train()
    if compiled:
        model.compile()
    params = [p for p in model.parameters() if p.requires_grad]
    opt = torch.optim.AdamW(params, lr=job["lr"], betas=job["betas"], eps=job["eps"], weight_decay=job["weight_decay"], fused=True)
    for step, (ids, starts) in enumerate(batches(job), 1):
        tokens = torch.tensor(ids)
        labels = tokens.clone()
        for row, start in zip(labels, starts):
            row[:start] = -100
        loss = model(input_ids=tokens, labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(params, job["clip"])
        opt.step()
        opt.zero_grad()
        tell_step(step, loss.item())


def train_mlx(job):
    import mlx.core as mx
    import mlx.optimizers as optim
    from mlx.utils import tree_flatten
    from mlx_lm.tuner.trainer import TrainingArgs, TrainingCallback, train
    from mlx_lm.tuner.utils import linear_to_lora_layers
    from mlx_lm.utils import load_model

    tell_versions("mlx", "mlx-lm", BLAS=blas())
    mx.set_default_device(mx.cpu)

    class Clipped(optim.AdamW):  # mlx-lm's loop does not clip
        def update(self, model, gradients):
            super().update(model, optim.clip_grad_norm(gradients, job["clip"])[0])

    class Tell(TrainingCallback):
        def on_train_loss_report(self, info):
            tell_step(info["iteration"], info["train_loss"])

    def in_order(**_):  # instead of mlx-lm's iterate_batches, which shuffles
        for ids, starts in batches(job):
            yield mx.array(ids), mx.array([[start, job["length"]] for start in starts])

    model, _ = load_model(Path(job["model"]))
    model.set_dtype(mx.float32)
    model.freeze()
    linear_to_lora_layers(model, len(model.layers), {"rank": job["rank"], "scale": job["alpha"] / job["rank"], "dropout": 0.0})
    adapter = from_peft(mx.load(f"{job['adapter']}/adapter_model.safetensors"))
    if sorted(name for name, _ in adapter) != sorted(name for name, _ in tree_flatten(model.trainable_parameters())):
        sys.exit("the adapter's tensors are not those that mlx-lm trains")
    model.load_weights(adapter, strict=False)
    opt = Clipped(learning_rate=job["lr"], betas=job["betas"], eps=job["eps"], weight_decay=job["weight_decay"], bias_correction=True)
    args = TrainingArgs(batch_size=job["batch"], iters=job["steps"], steps_per_report=1, steps_per_save=job["steps"] + 1,
                        max_seq_length=job["length"], adapter_file=os.path.join(job["out"], "adapters.safetensors"))
    train(model, opt, train_dataset=None, args=args, iterate_batches=in_order, training_callback=Tell())


def blas():
    """What this process multiplies with: the wheel of MLX for Linux brings the reference BLAS."""
    maps = Path("/proc/self/maps")
    if not maps.exists():
        return "of the system"
    names = {Path(line.split()[-1]).name for line in maps.read_text().splitlines() if "blas" in line}
    return "/".join(sorted(n for n in names if "scipy" not in n)) or "unknown"


def from_peft(tensors):
    """PEFT's [rank, in] and [out, rank] are mlx-lm's [in, rank] and [rank, out]."""
    def name(key):
        return key.removeprefix("base_model.model.").replace("lora_A.weight", "lora_a").replace("lora_B.weight", "lora_b")

    return [(name(key), t.T) for key, t in tensors.items()]


if __name__ == "__main__":
    kind, job = sys.argv[1], json.load(open(sys.argv[2]))
    if kind == "data":
        write_data(job)
    elif kind == "mlx":
        train_mlx(job)
    else:
        train_torch(job, compiled=kind == "compile")
