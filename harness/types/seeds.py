"""Random streams: every random number is a function of what it is for, never of what was drawn before.

A stream is named by its role and by indices (iteration or epoch, then whatever distinguishes draws within it). Nothing
has to be stored to resume, no cell of a grid changes another, and two pools see the same real batch at the same
iteration.
"""

import contextlib
import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass

import torch

_GLOBAL_RNG = threading.RLock()


@dataclass(frozen=True)
class Streams:
    """The random streams of one distillation.

    Args:
        seed: the run's seed, any integer.
        distillation: index of the distillation; other indices give independent streams.
    """

    seed: int
    distillation: int = 0

    def number(self, role: str, *index: int) -> int:
        """A 64-bit number: the first eight bytes of SHA-256 over (seed, role, distillation, indices)."""
        text = json.dumps([self.seed, role, self.distillation, *index], separators=(",", ":"))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big", signed=False)

    def generator(self, role: str, *index: int) -> torch.Generator:
        """A fresh CPU generator for this role and these indices.

        Numbers are always drawn on the CPU and moved, so that they do not depend on the device. torch's CPU engine
        keeps 32 bits of the seed: two streams of a study may coincide by chance, but never by construction.
        """
        return torch.Generator().manual_seed(self.number(role, *index))


@contextlib.contextmanager
def global_rng_from(generator: torch.Generator) -> Iterator[None]:
    """Seed torch's global generators, a GPU's too, from ``generator``, and give them back untouched afterwards.

    For code that draws from the global generator and takes no other (default layer initialisation, dropout). One thread
    at a time: the global generator belongs to the process.
    """
    seed = int(torch.randint(2**62, (), generator=generator, device="cpu"))
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    with _GLOBAL_RNG, torch.random.fork_rng(devices=gpus):
        torch.default_generator.manual_seed(seed)
        for gpu in gpus:
            torch.cuda.default_generators[gpu].manual_seed(seed)
        yield


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """A CPU tensor's copy on ``device``, itself on a CPU; a GPU's unfinished work is not waited for."""
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
