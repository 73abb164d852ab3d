"""The golden run of ../shared/golden/stories260k once more, with transformers and PEFT, in float64 throughout.

transformers computes RMS norms in float32 whatever the model's precision, and torch's float32 cosine is off by a unit in
the last place now and then. Both are noise of about 1e-8 in a loss, which AdamW amplifies to 4e-6 within 32 steps. With
norms in float64 and correctly rounded cosines, this script and graft's reference backend agree to 1e-13.

    python bench/golden.py ../shared trainer/testdata/stories260k-float64.json
"""

import json
import math
import sys

import torch
import transformers.models.llama.modeling_llama as llama
from peft import PeftModel
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast


def norm(self, x):
    return self.weight * (x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.variance_epsilon))


def rotary(self, x, position_ids):
    half = position_ids[:, :, None].float() * self.inv_freq[None, None, :].float()
    angles = torch.cat((half, half), -1).double()
    return angles.cos().float().double(), angles.sin().float().double()


def examples(shared):
    tok = PreTrainedTokenizerFast(tokenizer_file=f"{shared}/models/stories260k/tokenizer.json")
    for line in open(f"{shared}/golden/stories260k/train.jsonl"):
        o = json.loads(line)
        prompt = tok(o["prompt"])["input_ids"]
        full = tok(o["prompt"] + o["completion"])["input_ids"] + [2]
        same = 0
        while same < len(prompt) and prompt[same] == full[same]:
            same += 1
        yield full, same


def main(shared, out):
    llama.LlamaRMSNorm.forward = norm
    llama.LlamaRotaryEmbedding.forward = rotary
    data = list(examples(shared))
    model = AutoModelForCausalLM.from_pretrained(f"{shared}/models/stories260k", dtype=torch.float64)
    model = PeftModel.from_pretrained(model, f"{shared}/golden/stories260k/adapter_init", is_trainable=True, autocast_adapter_dtype=False)
    params = [p for p in model.parameters() if p.requires_grad]
    for p in params:
        p.data = p.data.double()
    opt = torch.optim.AdamW(params, lr=5e-3, weight_decay=0.01, betas=(0.9, 0.999), eps=1e-8)
    steps = []
    for step in range(1, 33):
        lr = 5e-3 * (step / 4 if step <= 4 else 0.5 * (1 + math.cos(math.pi * (step - 5) / 28)))
        for group in opt.param_groups:
            group["lr"] = lr
        at = (step - 1) * 8 % len(data)
        window = data[at : at + 8]
        tokens = sum(len(ids) - start for ids, start in window)
        opt.zero_grad()
        loss = 0.0
        for ids, start in window:
            t = torch.tensor([ids])
            logits = model(input_ids=t).logits[0]
            part = torch.nn.functional.cross_entropy(logits[start - 1 : -1], t[0, start:], reduction="sum") / tokens
            part.backward()
            loss += part.item()
        grad_norm = torch.nn.utils.clip_grad_norm_(params, 1.0).item()
        opt.step()
        steps.append({"step": step, "loss": loss, "grad_norm": grad_norm})
    json.dump(steps, open(out, "w"), indent=1)


if __name__ == "__main__":
    main(*sys.argv[1:])
