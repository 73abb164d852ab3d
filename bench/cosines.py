"""The float32 cosines and sines of torch that are not the nearest float32, for the angles of stories260k.

torch's float32 functions are off by a unit in the last place now and then; golden.json of ../shared was made with them. The
reference run that is compared with it (trainer/transformers_test.go) takes these values.

    python bench/cosines.py trainer/testdata/torch-cosines.json
"""

import json
import sys

import torch


def main(out):
    frequencies = 1 / 10000 ** (torch.arange(0, 8, 2).float() / 8)
    angles = torch.arange(512).float()[:, None] * frequencies[None, :]
    rows = []
    for name, f in [("cos", torch.cos), ("sin", torch.sin)]:
        got, nearest = f(angles), f(angles.double()).float()
        for position, i in torch.nonzero(got != nearest).tolist():
            rows.append({"function": name, "position": position, "frequency": i, "value": got[position, i].item()})
    with open(out, "w") as file:
        file.write("[\n" + ",\n".join(" " + json.dumps(r) for r in rows) + "\n]\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
