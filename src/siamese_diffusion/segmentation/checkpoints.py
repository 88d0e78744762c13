"""Published checkpoints: whole segmenters, and ImageNet weights of their encoders.

Names are mapped by the networks themselves; here files are read, and everything that does not fit
is told in one message.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn

from siamese_diffusion.core.errors import ConfigError, WeightsError
from siamese_diffusion.core.weights import read_state_dict
from siamese_diffusion.segmentation.base import Segmenter

_TOLD = 8  # names of each kind


def load_published(model: Segmenter, state: Mapping[str, Tensor], *, where: str) -> None:
    """Load the authors' full checkpoint strictly.

    Raises:
        WeightsError: Listing what is missing, unexpected or misshapen.
    """
    load_exactly(model, type(model).published_names(_bare(state)), where=where)


def load_encoder(model: Segmenter, path: Path) -> None:
    """Load ImageNet weights of the encoder strictly; its classifier may be in the file.

    Raises:
        ConfigError: If the network has no such encoder.
        WeightsError: If the file cannot be read, or is of another network (what differs is listed).
    """
    if not model.has_encoder:
        raise ConfigError(
            f"{type(model).__name__} has no encoder with published ImageNet weights",
            hint="leave --encoder-weights out",
        )
    state = type(model).encoder_names(_bare(read_state_dict(path)))
    load_exactly(model.get_submodule("encoder"), state, where=str(path))


def load_exactly(module: nn.Module, state: Mapping[str, Tensor], *, where: str) -> None:
    """Load a state dict; every tensor must be there, of the right shape, and no other.

    Raises:
        WeightsError: Listing every difference.
    """
    own = module.state_dict()
    counters = [name for name in own if name.endswith("num_batches_tracked")]
    # Files saved by old versions lack the batch counters, which nothing here reads.
    state = {**{name: own[name] for name in counters}, **state}
    problems = {
        "with another shape": [
            f"{name} {tuple(state[name].shape)}, needs {tuple(own[name].shape)}"
            for name in own
            if name in state and state[name].shape != own[name].shape
        ],
        "missing": [name for name in own if name not in state],
        "unexpected": [name for name in state if name not in own],
    }
    told = [f"{len(names)} {what}: {_some(names)}" for what, names in problems.items() if names]
    if told:
        raise WeightsError(
            f"'{where}' is of another network:\n" + "\n".join(f"- {line}" for line in told),
            hint="give the weights of this network, or choose the --model they belong to",
        )
    module.load_state_dict(dict(state))


def renamed(state: Mapping[str, Tensor], prefixes: Mapping[str, str]) -> dict[str, Tensor]:
    """Replace the first prefix that fits each name; other names stay, so that they are told of."""
    found = {}
    for name, tensor in state.items():
        old = next((prefix for prefix in prefixes if name.startswith(prefix)), None)
        found[name if old is None else prefixes[old] + name.removeprefix(old)] = tensor
    return found


def with_encoder(
    state: Mapping[str, Tensor], prefix: str, names: dict[str, Tensor]
) -> dict[str, Tensor]:
    """The tensors outside `prefix` as they are, and `names` under `encoder.`."""
    rest = {name: tensor for name, tensor in state.items() if not name.startswith(prefix)}
    return {**rest, **{f"encoder.{name}": tensor for name, tensor in names.items()}}


def below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names start with `prefix`, without it."""
    return {n.removeprefix(prefix): t for n, t in state.items() if n.startswith(prefix)}


def _bare(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Names without the prefix that data parallelism adds."""
    return {name.removeprefix("module."): tensor for name, tensor in state.items()}


def _some(names: list[str]) -> str:
    more = f"; and {len(names) - _TOLD} more" if len(names) > _TOLD else ""
    return "; ".join(names[:_TOLD]) + more
