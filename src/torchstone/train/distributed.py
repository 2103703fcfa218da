"""One training in several processes, as ``torchrun`` starts them. Each takes its share of every batch; the first one
reads, decides, writes and speaks, and the others do as it says."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import distributed as dist
from torch import nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from torchstone.core import console
from torchstone.core.errors import ConfigError

ValueT = TypeVar("ValueT")

FOREVER = timedelta(days=7)
"""Others wait while the first process reads and decodes, however long it takes. Who waits for a process that has died
is ended by torchrun. gloo counts milliseconds in 32 bits: with more than 24 days it gives up at once."""


@dataclass(frozen=True)
class Ranks:
    """This process among those of the training."""

    rank: int = 0
    size: int = 1
    local: int = 0
    """Its number on this machine."""

    @property
    def first(self) -> bool:
        return self.rank == 0

    def share(self, batch: NDArray[np.intp]) -> NDArray[np.intp]:
        """This process's part of a batch: neighbours, of sizes that differ by one at most."""
        start, stop = (len(batch) * number // self.size for number in (self.rank, self.rank + 1))
        return batch[start:stop]

    def sum(self, values: Sequence[float], device: torch.device) -> list[float]:
        """The sums over all processes."""
        if self.size == 1:
            return list(values)
        total = torch.tensor(values, dtype=torch.float64, device=device)
        dist.all_reduce(total)
        return total.tolist()

    def largest(self, value: int, device: torch.device) -> int:
        """The largest value over all processes."""
        if self.size == 1:
            return value
        found = torch.tensor(value, device=device)
        dist.all_reduce(found, dist.ReduceOp.MAX)
        return int(found)

    def add(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum of a tensor over all processes, in place."""
        if self.size > 1:
            dist.all_reduce(tensor)
        return tensor

    def as_the_first(self, value: ValueT) -> ValueT:
        """The value that the first process gave; others wait for it."""
        if self.size == 1:
            return value
        box = [value]
        dist.broadcast_object_list(box, src=0)
        return box[0]

    def one_by_one(self, make: Callable[[], ValueT]) -> ValueT:
        """What ``make`` gives, called in the first process before the others, who find what it left on the disk."""
        if self.first:
            made = make()
            self.as_the_first(None)
            return made
        self.as_the_first(None)
        return make()

    def same_buffers(self, network: nn.Module) -> None:
        """Give every process the first one's buffers: each has batch-norm statistics of its own share."""
        if self.size > 1:
            for buffer in network.buffers():
                dist.broadcast(buffer.data, src=0)


def here() -> Ranks:
    """This process; alone where no group was joined."""
    if not dist.is_available() or not dist.is_initialized():
        return Ranks()
    return Ranks(dist.get_rank(), dist.get_world_size(), int(os.environ.get("LOCAL_RANK", "0")))


@contextmanager
def joined(*, gpu: bool) -> Iterator[Ranks]:
    """Inside, this process is one of those that torchrun started, each with a GPU of its own where ``gpu`` says so;
    alone where it was not torchrun that did."""
    if here().size > 1 or int(os.environ.get("WORLD_SIZE", "1")) < 2:
        yield here()
        return
    if gpu:
        local = int(os.environ["LOCAL_RANK"])
        if local >= torch.cuda.device_count():
            raise ConfigError(
                f"process {local} of this machine finds {torch.cuda.device_count()} GPUs",
                hint="torchrun --nproc-per-node GPUS, or --device cpu",
            )
        torch.cuda.set_device(local)
    backend = "cpu:gloo,cuda:nccl" if gpu else "gloo"
    store, rank, size = next(rendezvous("env://", timeout=FOREVER))
    store.set_timeout(FOREVER)
    # On one machine torchrun keeps its store for all starts, and with it the addresses of processes that have died.
    start = f"start {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')} of {size}"
    dist.init_process_group(backend, store=PrefixStore(start, store), rank=rank, world_size=size, timeout=FOREVER)
    ranks = here()
    if not ranks.first:
        console.be_quiet()
    try:
        yield ranks
    finally:
        dist.destroy_process_group()


def wrapped(network: nn.Module, ranks: Ranks, device: torch.device) -> nn.Module:
    """``network`` with gradients that are averaged over all processes; the network itself where there is one."""
    if ranks.size == 1:
        return network
    from torch.nn.parallel import DistributedDataParallel

    return DistributedDataParallel(network, device_ids=[device.index] if device.type == "cuda" else None)


def on_this_machine() -> int:
    """Processes of the training on this machine: they share its cores."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1")) if here().size > 1 else 1


@contextmanager
def synchronised_norms(network: nn.Module, ranks: Ranks, device: torch.device) -> Iterator[None]:
    """Inside, batch norms compare the images of all processes, where these have GPUs; the network's own modules are
    back afterwards, with what was learned. On CPUs each process compares the images of its share."""
    if ranks.size == 1 or device.type != "cuda":
        yield
        return
    with replaced_norms(network):
        yield


@contextmanager
def replaced_norms(network: nn.Module) -> Iterator[None]:
    """Inside, the network's batch norms are synchronised ones, over the same parameters and statistics."""
    from timm.layers.norm_act import convert_sync_batchnorm
    from torch.nn.modules.batchnorm import _BatchNorm

    own = {name: module for name, module in network.named_modules() if isinstance(module, _BatchNorm)}
    for name, module in own.items():
        parent, _, slot = name.rpartition(".")
        setattr(network.get_submodule(parent), slot, convert_sync_batchnorm(module))
    try:
        yield
    finally:
        for name, module in own.items():
            parent, _, slot = name.rpartition(".")
            setattr(network.get_submodule(parent), slot, module)


SHARD_FROM = 1 << 30
"""Bytes of an optimiser's state from which each process keeps a part of it alone."""


def sharded(optimiser: torch.optim.Optimizer, wanted: bool | None, ranks: Ranks, entries: int) -> torch.optim.Optimizer:
    """The same optimiser with its state spread over the processes (Rajbhandari et al. 2020, stage 1): each updates a
    part of the parameters and sends it to the others. None: where the state, ``entries`` tensors of each parameter's
    size, is large."""
    parameters = [parameter for group in optimiser.param_groups for parameter in group["params"]]
    if wanted is None:
        wanted = entries * sum(parameter.nbytes for parameter in parameters) >= SHARD_FROM
    if not wanted or ranks.size == 1:
        return optimiser
    from torch.distributed.optim import ZeroRedundancyOptimizer

    known = inspect.signature(type(optimiser)).parameters  # AdamW's defaults hold what it does not take
    options = {name: value for name, value in optimiser.defaults.items() if name in known}
    return ZeroRedundancyOptimizer(optimiser.param_groups, type(optimiser), **options)


def state_of(optimiser: torch.optim.Optimizer, ranks: Ranks) -> dict[int, dict[str, Any]]:
    """The optimiser's state by the number of the parameter; whole in the first process. All processes call it."""
    from torch.distributed.optim import ZeroRedundancyOptimizer

    if isinstance(optimiser, ZeroRedundancyOptimizer):
        optimiser.consolidate_state_dict(to=0)
        if not ranks.first:
            return {}
    return optimiser.state_dict()["state"]
