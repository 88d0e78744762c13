"""All benchmarks, one after the other, each in a process of its own.

    python -m benchmarks --device cuda      Stable Diffusion 1.5's size, one GPU
    python -m benchmarks --device cpu --small

Prints every table and writes all numbers to one file below `results/`, from which
`python -m benchmarks.page` makes docs/performance.md. `--only` runs some of the scripts.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.record import ROOT, machine, read, write
from benchmarks.workload import options, workload

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
    found, failed = [], []
    with tempfile.TemporaryDirectory() as folder:
        for name in asked.only:
            path = Path(folder) / f"{name}.json"
            command = [sys.executable, "-m", f"benchmarks.{name}", "--device", asked.device]
            command += ["--small"] if asked.small else []
            for option in ("size", "repeats"):
                if getattr(asked, option) is not None:
                    command += [f"--{option}", str(getattr(asked, option))]
            print(flush=True)
            if subprocess.run([*command, "--json", str(path)], cwd=ROOT).returncode:
                failed.append(name)
                continue
            found += read(path)[2]
    if found:
        target = asked.json or result_path(load.device.type, small=asked.small)
        write(target, found, scale=load.scale, about=about)
        print(f"\n{target}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
