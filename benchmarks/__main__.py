"""All benchmarks, one after the other.

    python -m benchmarks --device cuda      Stable Diffusion 1.5's size, one GPU
    python -m benchmarks --device cpu --small

Prints every table and writes all numbers to one file below `results/`, from which
`python -m benchmarks.page` makes docs/performance.md. `--only` runs some of the scripts.
"""

from __future__ import annotations

import gc
import importlib
import sys
import time
import traceback
from pathlib import Path

import torch

from benchmarks.record import ROOT, Found, machine, write
from benchmarks.workload import options, show, workload

SCRIPTS = (
    "training_step",
    "step_memory",
    "paper_training",
    "sampling",
    "matrix_rate",
    "bulk_sampling",
    "data_path",
)


def result_path(device: str, *, small: bool) -> Path:
    """Where the numbers of one kind of machine go."""
    return ROOT / "results" / f"performance-{device}{'-small' if small else ''}.json"


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--only", nargs="+", choices=SCRIPTS, default=list(SCRIPTS))
    asked = parser.parse_args()
    load = workload(asked)
    about = machine(load.device)
    print(f"{load.scale}\n" + "\n".join(f"{key}: {value}" for key, value in about.items()))
    target = asked.json or result_path(load.device.type, small=asked.small)
    found: list[Found] = []
    failed = []
    for name in asked.only:
        print(flush=True)
        began = time.perf_counter()
        try:
            found.append(show(importlib.import_module(f"benchmarks.{name}").measure, load, None))
        except Exception:  # the others still have something to say
            traceback.print_exc()
            failed.append(name)
        print(f"({time.perf_counter() - began:.0f} s)", flush=True)
        gc.collect()
        if load.device.type == "cuda":
            torch.cuda.empty_cache()
        if found:  # after each one: a run that is cut off keeps what it has
            write(target, found, scale=load.scale, about=about)
    if found:
        print(f"\n{target}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
