"""The choice of a distillation's precision by what is quicker on this machine."""

from dataclasses import replace

from harness.compute.machine import choose_device
from harness.compute.precision import precision_speeds, quickest_precision
from harness.planning.request import Request


def decide_precision(request: Request) -> tuple[Request, tuple[str, ...]]:
    """Return the request with ``auto`` replaced by the quickest precision of its device, and notes on the choice.

    Raises:
        UsageError: there is no such device.
    """
    if request.precision not in ("auto", "bf16"):
        return request, ()
    device, compiled = choose_device(request.device), request.compile == "auto"
    speeds = precision_speeds(device, compiled=compiled)
    others = [f"{name} is {speed:g} times as fast as fp32" for name, speed in speeds.items() if name != "fp32"]
    measured = f"{', '.join(others)} on this machine"
    if request.precision == "auto":
        precision = quickest_precision(device, compiled=compiled)
        return replace(request, precision=precision), (f"--precision auto is {precision}: {measured}",)
    if speeds["bf16"] < 1:
        return request, (f"--precision bf16 slows the work: {measured}; leave it out, or say auto",)
    return request, ()
