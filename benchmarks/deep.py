"""Train twelve blocks on ML-100K with mHC (two projections) and with plain residuals, and plot diagnostics.

    python benchmarks/deep.py FOLDER --data FILE --figure docs/pictures/mhc-depth.svg

The figure shows gradient norms, gain and stream diversity. Existing runs in FOLDER are reused. The script stops if
a logged value is not finite.
"""

from __future__ import annotations

import argparse
import json
import math
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import torch

import sasrec

SETTINGS: dict[str, Any] = {
    "maxlen": 50,
    "hidden_units": 64,
    "num_blocks": 12,
    "dropout_rate": 0.2,
    "batch_size": 32,
    "num_epochs": 40,
    "eval_every": 10,
    "diagnose_every": 10,
    "seed": 0,
    "device": "cpu",
}
RESIDUALS: dict[str, dict[str, Any]] = {
    "mHC": {"mhc": True},
    "mHC, birkhoff": {"mhc": True, "mhc_projection": "birkhoff"},
    "plain": {},
}


def diagnostics(folder: Path, data: str, residual: dict[str, Any]) -> list[dict[str, Any]]:
    """The diagnostics of a run; train the run first if it does not exist."""
    if not (folder / "metrics.json").exists():
        sasrec.train(data, folder, **SETTINGS, **residual)
    events = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    found = [event for event in events if event["event"] == "diagnostics"]
    for event in found:
        numbers = [event["loss"], event["gradient_norm"], *event.get("gain", []), *event.get("diversity", [])]
        assert all(math.isfinite(number) for number in numbers), event
    return found


def draw(runs: dict[str, list[dict[str, Any]]], path: Path) -> None:
    """Draw three panels over the training steps."""
    figure, (gradients, gain, diversity) = plt.subplots(1, 3, figsize=(11, 3.2), layout="constrained")
    for name, events in runs.items():
        gradients.semilogy([e["step"] for e in events], [e["gradient_norm"] for e in events], label=name)
    gradients.set(title="gradient norm", xlabel="step")
    gradients.legend()
    for name, style in (("mHC", "-"), ("mHC, birkhoff", ":")):
        events = runs[name]
        steps = [e["step"] for e in events]
        depth = len(events[0]["gain"])
        for layer, colour in ((1, "C0"), (depth // 2, "C1"), (depth, "C2")):
            look = {"color": colour, "linestyle": style, "label": f"{name}, sub-layer {layer}"}
            gain.plot(steps, [e["gain"][layer - 1] for e in events], **look)
            diversity.semilogy(steps, [e["diversity"][layer - 1] for e in events], **look)
    gain.set(title="composite gain of H_res (1: none)", xlabel="step")
    diversity.set(title="diversity of the streams", xlabel="step")
    diversity.legend(fontsize="x-small")
    figure.savefig(path)


def main() -> None:
    """Train, check, draw, and print the extreme values."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", default="ml-100k", help="a name or a file, as for sasrec train")
    parser.add_argument("--figure", type=Path, default=Path("mhc-depth.svg"))
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    folders = {name: options.folder / name.replace(", ", "-") for name in RESIDUALS}
    runs = {name: diagnostics(folders[name], options.data, RESIDUALS[name]) for name in RESIDUALS}
    draw(runs, options.figure)
    for name, events in runs.items():
        norms = [event["gradient_norm"] for event in events]
        metrics = json.loads((folders[name] / "metrics.json").read_text())
        print(f"{name}: gradient norm {min(norms):.3f} to {max(norms):.3f}, last {norms[-1]:.3f};", end=" ")
        print(f"test NDCG@10 {metrics['test']['full']['ndcg@10']:.4f}", end="")
        if "gain" in events[0]:
            gain, columns = (max(max(event[key]) for event in events) for key in ("gain", "columns"))
            print(f"; largest gain {gain:.4f}, largest column error {columns:.1e}", end="")
        print()


if __name__ == "__main__":
    main()
