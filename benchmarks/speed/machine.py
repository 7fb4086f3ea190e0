"""The machine: what it is, and how fast it multiplies and convolves at best."""

from dataclasses import dataclass

from figures import Figure
from processes import timed

PART = "machine"


@dataclass(frozen=True)
class Machine:
    """A description, and by precision the least seconds that one image's convolutions take, forward and backward."""

    description: dict
    convolutions: dict
    figures: tuple


def measure(settings, rates):
    """Describe the machine; with ``rates``, measure them."""
    lines = timed(
        "roofline", dataset=settings.dataset, architecture="convnet", batches=settings.batches, images=settings.images,
        side=settings.matrix, repeats=max(settings.repeats, 3) if rates else 0,
    )  # fmt: skip
    (description,) = (line["machine"] for line in lines if "machine" in line)
    rates = [line for line in lines if "rate" in line]
    best = _best([line for line in rates if line["rate"] == "convolution"])
    figures = [_figure("matrix product", line) for line in rates if line["rate"] == "matrix product"]
    for (layer, direction, _, _), line in best.items():
        shape = f"convolution {layer + 1}, {direction}"
        figures.append(_figure(shape, line))
    least = _least(best)
    for precision, seconds in least.items():
        what = "all convolutions of an image, forward and backward"
        figures.append(Figure(PART, what, f"least, {precision}", 1e3 * seconds, "ms"))
    return Machine(description, least, tuple(figures))


def _figure(what, line):
    rate = line["flop"] / line["seconds"] / 1e9
    return Figure(PART, what, f"{line['precision']}, {line['way']}", rate, "GFLOP/s")


def _best(lines):
    """The fastest of the batches and layouts, by layer, direction, precision and way."""
    best = {}
    for line in lines:
        key = tuple(line[name] for name in ("layer", "direction", "precision", "way"))
        if key not in best or line["seconds"] < best[key]["seconds"]:
            best[key] = line
    return best


def _least(best):
    """By precision, seconds of all layers and directions, each by the way that is fastest for it."""
    least = {}
    for (layer, direction, precision, _), line in best.items():
        place = least.setdefault(precision, {})
        place[layer, direction] = min(line["seconds"], place.get((layer, direction), line["seconds"]))
    return {precision: sum(places.values()) for precision, places in least.items()}
