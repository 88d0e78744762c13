"""Speed and memory beside what a user would run instead: one script per question.

`python -m benchmarks` runs all of them; see `docs/performance.md`.
"""
