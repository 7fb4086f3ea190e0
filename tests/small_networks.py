"""Small networks and data in double precision, to train in a moment."""

import torch
from toys import component

from harness import Streams

SHAPE, CLASSES = (1, 16, 16), 3


def networks_of(name, count=3):
    architecture = component("architecture", name)
    return [architecture.build(SHAPE, CLASSES, Streams(0).generator("student", 0, k)).double() for k in range(count)]


def data(per_class=3, soft=False):
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(per_class * CLASSES, *SHAPE, generator=generator, dtype=torch.float64)
    labels = torch.arange(CLASSES).repeat_interleave(per_class)
    return images, torch.rand(len(images), CLASSES, generator=generator).double() if soft else labels


def draw_of(student):
    return lambda purpose, epoch: Streams(0).generator(f"student-{purpose}", epoch, student)
