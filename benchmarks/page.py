"""docs/performance.md from the files below `results/` that `python -m benchmarks` wrote.

python -m benchmarks.page            writes the page
python -m benchmarks.page --check    exit code 1 if the page is not what the files say
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from benchmarks.record import ROOT, Found, Line, number, read

PAGE = ROOT / "docs" / "performance.md"
HEAD = """# Performance

Speed and memory beside what one would run instead, by one command:

```
python -m benchmarks --device cpu --small    # a small base, minutes on two cores
python -m benchmarks --device cuda           # Stable Diffusion 1.5's size, one GPU
python -m benchmarks.page                    # this page, from what they wrote
```

Every table comes from `results/performance-*.json`; this page is written by a program, never by
hand. Each ratio was measured in one run on one machine: the compared pieces of work take turns
after one warm-up each, so that other load falls on all of them; values are medians, the spread is
the largest less the smallest repeat. Weights are random. Targets hold at full size on a GPU and are
shown there alone. Ratios above 1 are in favour of this project.

| script | beside what |
|---|---|
| `benchmarks/training_step.py` | the release's step, written down literally, on the same weights |
| `benchmarks/step_memory.py` | the same |
| `benchmarks/paper_training.py` | - |
| `benchmarks/sampling.py` | a release-style loop of batch 1 in fp32; diffusers' pipeline |
| `benchmarks/matrix_rate.py` | one large bf16 matrix product on the same device |
| `benchmarks/bulk_sampling.py` | the denoiser alone; one worker |
| `benchmarks/data_path.py` | the step that waits for the batch |

The literal step deep copies both networks, runs the frozen encoder three times and Eq. 12 on the
whole batch. The release-style loop encodes the hint in both passes of every step. diffusers'
pipeline is its `StableDiffusionControlNetPipeline` at the same precision, both sides at their best
batch. `benchmarks/sampling.py` also compares the images and states the tolerance.
`python tools/count_flops.py --checkpointing --sampling` counts operations without a device.
"""
NO_GPU = """
## On a GPU

Not measured yet: no file of a GPU lies below `results/`. Nothing is claimed.
"""


def page(files: list[Path]) -> str:
    """The whole page."""
    text = [HEAD]
    on_gpu = False
    for path in files:
        scale, about, found = read(path)
        on_gpu = on_gpu or about["device"] != "cpu"
        text.append(_machine(scale, about))
        text += [_section(one) for one in found]
    return "".join(text if on_gpu else [*text, NO_GPU])


def _machine(scale: str, about: dict[str, object]) -> str:
    packages = about["packages"]
    assert isinstance(packages, dict)
    versions = ", ".join(f"{name} {packages[name]}" for name in ("torch", "diffusers"))
    load = about["load"]
    assert isinstance(load, list)
    return (
        f"\n## {scale[0].upper()}{scale[1:]}; {about['device']}\n\n"
        f"{str(about['time'])[:10]}, commit {about['commit']}, {about['processor']}, "
        f"{about['cores']} cores, {about['threads']} threads, load at the start {load[0]:g}; "
        f"Python {about['python']}, {versions}.\n"
    )


def _section(found: Found) -> str:
    text = [f"\n### {found.name.replace('_', ' ').capitalize()}\n\n{found.question}\n\n"]
    text.append("| | value | spread | unit | ratio | beside |\n|---|---|---|---|---|---|\n")
    text += [_line(line) for line in found.lines]
    if found.remarks:
        text.append("\n" + "".join(f"- {remark}\n" for remark in found.remarks))
    return "".join(text)


def _line(line: Line) -> str:
    spread = "" if line.spread is None else number(line.spread)
    ratio = "" if line.ratio is None else f"{line.ratio:.2f}"
    if line.target is not None:
        ratio += f" (target {line.target:g})"
    cells = (line.what, number(line.value), spread, line.unit, ratio, line.beside)
    return "| " + " | ".join(cells) + " |\n"


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--check", action="store_true", help="compare instead of writing")
    check = parser.parse_args().check
    text = page(sorted((ROOT / "results").glob("performance-*.json")))
    if check:
        if not PAGE.exists() or PAGE.read_text() != text:
            print(f"'{PAGE}' is not what results/ says: python -m benchmarks.page", file=sys.stderr)
            return 1
        return 0
    PAGE.write_text(text)
    print(PAGE)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
