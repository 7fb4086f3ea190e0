"""Times students in plain eager torch, one after another: what the harness is to be faster than.

The recipe is that of DC's evaluation without augmentation; torch has its own threads, and memory its usual ways.
"""

import time

import torch
from subjects import STREAMS, answer, real_problem, real_set, report, resolve
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

BATCH, LR = 256, 0.01


def eager(dataset, ipc, architecture, epochs, count):
    """Seconds of each of ``count`` students that train for ``epochs`` epochs, and of scoring it."""
    problem = real_problem(dataset)
    inputs = problem.preprocessing.to_inputs(problem.score.images)
    learnt = DataLoader(TensorDataset(*real_set(problem, ipc)), BATCH, shuffle=True)
    scored = DataLoader(TensorDataset(inputs, problem.score.labels), BATCH)
    first = DataLoader(TensorDataset(inputs[:BATCH], problem.score.labels[:BATCH]), BATCH)

    def build(student):
        generator = STREAMS.generator("student", 0, student)
        return resolve("architecture", architecture).make().build(problem.shape, len(problem.classes), generator)

    network = build(count)
    train(network, learnt, 1)
    accuracy(network, first)
    for student in range(count):
        begun = time.perf_counter()
        network = build(student)
        train(network, learnt, epochs)
        trained = time.perf_counter()
        accuracy(network, scored)
        ended = time.perf_counter()
        report(seconds=ended - begun, scoring=ended - trained)


def train(network, loader, epochs):
    """SGD with momentum; half-way the rate drops tenfold, and momentum starts afresh."""
    network.train()
    rate, optimizer = LR, None
    for epoch in range(epochs):
        if optimizer is None:
            optimizer = torch.optim.SGD(network.parameters(), rate, momentum=0.9, weight_decay=5e-4)
        for images, labels in loader:
            loss = functional.cross_entropy(network(images), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            loss.item()
        if epoch == (epochs - 1) // 2 + 1:
            rate, optimizer = LR * 0.1, None


def accuracy(network, loader):
    network.eval()
    with torch.no_grad():
        right = sum(int((network(images).argmax(1) == labels).sum()) for images, labels in loader)
    return right / len(loader.dataset)


if __name__ == "__main__":
    answer(eager)
