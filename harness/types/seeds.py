"""Random streams: every random number is a function of its purpose, never of what was drawn before.

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
        """Return a 64-bit number: the first eight bytes of SHA-256 over (seed, role, distillation, indices)."""
        # JSON with fixed separators is the same text on every machine; ``hash()`` and ``repr`` are not guaranteed to
        # be.
        text = json.dumps([self.seed, role, self.distillation, *index], separators=(",", ":"))
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big", signed=False)

    def generator(self, role: str, *index: int) -> torch.Generator:
        """Return a fresh CPU generator for this role and these indices.

        Numbers are always drawn on the CPU and moved, so that they do not depend on the device. torch's CPU engine
        keeps 32 bits of the seed: two streams of a study may coincide by chance, but never by construction.
        """
        return torch.Generator().manual_seed(self.number(role, *index))


@contextlib.contextmanager
def global_rng_from(generator: torch.Generator) -> Iterator[None]:
    """Seed torch's global generators from ``generator``, a GPU's too, and restore their states afterwards.

    For code that draws from the global generator and takes no other (default layer initialisation, dropout). One thread
    at a time: the global generator belongs to the process.
    """
    seed = int(torch.randint(2**62, (), generator=generator, device="cpu"))
    # Seeding a GPU's generator would initialise CUDA in a process that may never use it.
    gpus = range(torch.cuda.device_count()) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    with _GLOBAL_RNG, torch.random.fork_rng(devices=gpus):
        torch.default_generator.manual_seed(seed)
        for gpu in gpus:
            torch.cuda.default_generators[gpu].manual_seed(seed)
        yield


def send(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a CPU tensor's copy on ``device`` (on a CPU the tensor itself), without waiting for a GPU."""
    # Only a copy from pinned memory is asynchronous; from pageable memory CUDA waits for its own staging copy.
    return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)
