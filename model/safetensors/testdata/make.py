# Makes official.safetensors with the format's own Python library (0.8.0):
#   python -m venv v && v/bin/pip install safetensors numpy && v/bin/python make.py
import numpy as np
from safetensors.numpy import save_file

save_file({
    "z.weight": np.arange(6, dtype=np.float32).reshape(2, 3) - 2.5,
    "a.weight": np.array([1.5, -0.0, 65504.0], dtype=np.float16),
    "d": np.array(1e300, dtype=np.float64),
    "ids": np.array([[1, -2**62]], dtype=np.int64),
    "small": np.array([-3, 7], dtype=np.int32),
    "tiny": np.array([-3, 7], dtype=np.int16),
    "bytes": np.array([1, 2, 255], dtype=np.uint8),
    "signed": np.array([-1], dtype=np.int8),
    "mask": np.array([True, False]),
    "empty": np.zeros((0, 4), dtype=np.float32),
    'quote"<é>': np.ones((1, 1, 1), dtype=np.float32),
}, "official.safetensors", metadata={"format": "pt <&> \"é\""})
