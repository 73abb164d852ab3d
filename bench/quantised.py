"""Random blocks of the quantised types with their values, decoded by the gguf package (pip install gguf).

    python bench/quantised.py kernels/testdata/quantised.json
"""
import base64, json, sys
import numpy as np, gguf
from gguf import quants, GGMLQuantizationType as T
rng = np.random.default_rng(7)
out = []
for name, size, scales in [("Q8_0",34,[0]),("Q4_0",18,[0]),("Q4_1",20,[0,2]),("Q5_0",22,[0]),("Q5_1",24,[0,2]),("Q4_K",144,[0,2]),("Q5_K",176,[0,2]),("Q6_K",210,[208])]:
    raw = rng.integers(0, 256, (3, size), dtype=np.uint8)
    for r in raw:
        for s in scales:
            r[s:s+2] = np.frombuffer(np.float16(rng.normal()*0.02).tobytes(), np.uint8)
    v = quants.dequantize(raw, T[name]).astype(np.float32).ravel()
    out.append({"type": name, "blocks": base64.b64encode(raw.tobytes()).decode(), "values": base64.b64encode(v.tobytes()).decode()})
json.dump(out, open(sys.argv[1], "w"), indent=1)
