"""The folder of a synthetic set: begun, continued, or refused because it holds something else.

Free of torch; knows plans but not how images are made.
"""

from __future__ import annotations

from collections.abc import Mapping

from siamese_diffusion.core.artifacts import (
    FORMAT,
    atomic_write_json,
    atomic_write_text,
    file_sha256,
    read_json,
    read_jsonl,
)
from siamese_diffusion.core.config import flatten
from siamese_diffusion.core.errors import OutputError
from siamese_diffusion.core.folders import SyntheticPaths
from siamese_diffusion.sampling.plan import KIND, Plan, some_names

_CONTINUE = (
    "repeat the command with the old settings to continue it, or choose another output folder"
)


def refuse_foreign_folder(paths: SyntheticPaths) -> None:
    """Refuse an output folder that holds something else than a synthetic set.

    Raises:
        OutputError: If `paths.root` is a file, or not empty and without a plan of ours.
    """
    root = paths.root
    if root.exists() and not root.is_dir():
        raise OutputError(
            f"output '{root}' is a file, not a folder", hint="choose another output folder"
        )
    if not root.is_dir():
        return
    # Listed before the header is looked for: another worker may be writing it just now.
    found = {entry.name for entry in root.iterdir() if not _is_temporary(entry.name)}
    if paths.plan_header.exists():
        kind = read_json(paths.plan_header).get("kind")
        if kind != KIND:
            raise OutputError(
                f"'{paths.plan_header}' is not the plan of a synthetic set (kind: {kind!r})",
                hint="choose another output folder",
            )
        return
    # A worker killed before its header was written leaves these and nothing else.
    begun = {paths.plan.name, paths.prompt.name}
    found -= {paths.claims.name}
    if found and not (paths.plan.name in found and found <= begun):
        raise OutputError(
            f"output folder '{root}' is not empty and holds no plan of ours "
            f"(found: {some_names(sorted(found))})",
            hint="choose an empty or new output folder",
        )


def settle_plan(paths: SyntheticPaths, plan: Plan) -> None:
    """Write the plan into its folder, or find it there already.

    Call it under a lock: workers that start together must not compare a half-written plan.

    Raises:
        OutputError: If the folder holds another plan (the settings that differ are named, old
            and new) or something else.
    """
    refuse_foreign_folder(paths)
    header = plan.header()
    if paths.plan_header.exists():
        _refuse_other_plan(paths, read_json(paths.plan_header), header, plan)
        if paths.plan.exists() and file_sha256(paths.plan) == header["plan_sha256"]:
            return
    # The header comes last: it says that the rest is there.
    atomic_write_text(paths.plan, plan.lines())
    if plan.prompt.strip():  # a prompt file may not be blank
        atomic_write_text(paths.prompt, plan.prompt + "\n")
    if not paths.plan_header.exists():
        atomic_write_json(paths.plan_header, header)


def refuse_strangers(plan: Plan, paths: SyntheticPaths) -> None:
    """Refuse pictures in the set's folders that its plan does not name.

    Raises:
        OutputError: Naming the first such file.
    """
    planned = {f"{item.id}.png" for item in plan.items}
    for folder in (paths.images, paths.masks):
        if not folder.is_dir():
            continue
        for path in sorted(folder.iterdir()):
            if not path.name.startswith(".") and path.name not in planned:
                raise OutputError(
                    f"'{path}' is not part of the plan of '{paths.root}'",
                    hint="move it out of the folder: readers would take it for a synthetic image",
                )


def _refuse_other_plan(
    paths: SyntheticPaths,
    old_header: Mapping[str, object],
    new_header: Mapping[str, object],
    plan: Plan,
) -> None:
    old_settings, new_settings = old_header.get("settings"), new_header["settings"]
    old = flatten(old_settings) if isinstance(old_settings, Mapping) else {}
    new = flatten(new_settings) if isinstance(new_settings, Mapping) else {}
    changes = [
        f"{key}: {_shown(old, key)} -> {_shown(new, key)}"
        for key in {**old, **new}
        if old.get(key) != new.get(key)
    ]
    if old_header.get("format") != FORMAT:
        changes.insert(0, f"format: {old_header.get('format')} -> {FORMAT}")
    if not changes and old_header.get("plan_sha256") != new_header["plan_sha256"]:
        changes = _changed_files(paths, plan)
    if changes:
        raise OutputError(
            f"'{paths.root}' holds another plan ({'; '.join(changes)})", hint=_CONTINUE
        )


def _changed_files(paths: SyntheticPaths, plan: Plan) -> list[str]:
    recorded = list(read_jsonl(paths.plan))
    current = [item.record() for item in plan.items]
    found = []
    for what, name in (("masks", "source"), ("images", "reference")):
        old, new = (
            {str(r[name]): r[f"{name}_sha256"] for r in records if name in r}
            for records in (recorded, current)
        )
        kinds = {
            f"{what} added": sorted(new.keys() - old.keys()),
            f"{what} removed": sorted(old.keys() - new.keys()),
            f"{what} changed": sorted(k for k in old.keys() & new.keys() if old[k] != new[k]),
        }
        found += [f"{kind}: {some_names(names)}" for kind, names in kinds.items() if names]
    return found or ["plan_sha256: the items differ although the settings do not"]


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith((".tmp", ".old"))


def _shown(flat: Mapping[str, object], key: str) -> object:
    return flat.get(key, "(not there)")
