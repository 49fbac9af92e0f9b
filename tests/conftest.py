"""The suite runs on the CPU, also where a GPU is: its tests compare bits. `make gpu` is for the GPU."""

import os

os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
