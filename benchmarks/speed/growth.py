"""How time grows with sizes, and what memory a step takes."""

from statistics import median

from figures import Figure, median_of
from processes import timed

METHOD = "dc"
COUNT = 3


def memory(settings, progress):
    """Peak memory of two steps beyond the data, each number of classes in a process of its own."""
    for classes in settings.memory_classes:
        progress(f"{classes} classes")
        noise = {"classes": classes, "of_class": settings.memory_batch, "shape": settings.shape}
        for precision in settings.precisions:
            case = {"method": METHOD, "noise": noise, "precision": precision, "batch_real": settings.memory_batch}
            lines = timed(
                "iterations", dataset=settings.dataset, policy=settings.compile, cases=[{**case, "count": 1}], peak=True
            )
            (peak,) = (line["peak"] for line in lines if "peak" in line)
            what = f"{METHOD}, ipc 1, {classes} classes of noise, {settings.memory_batch} images of each a step"
            yield Figure("memory", what, f"peak beyond the data, {precision}", peak / 1e6, "MB", count=1)


def growth(settings, progress):
    """Seconds of an iteration with one outer step against each size, and of students against their number."""
    for name, values in settings.growth:
        if name not in settings.sizes:
            continue
        progress(name)
        if name == "students":
            yield from of_students(settings, values)
            continue
        cases = [case_of(settings, name, value) for value in values]
        counted = [{"method": METHOD, "outer": 1, "count": COUNT, **case} for case in cases]
        lines = timed("iterations", dataset=settings.dataset, policy=settings.compile, cases=counted)
        of_case = [[line for line in lines if line["case"] == index] for index in range(len(cases))]
        seconds = [[line["seconds"] for line in of if "seconds" in line] for of in of_case]
        batch = f",batch_real={settings.batch}" if "batch_real" in cases[0] and name != "batch_real" else ""
        yield from against(f"{METHOD}[outer=1{batch}], {name}", values, seconds)


def of_students(settings, counts):
    """All students of one architecture, by their number."""
    evaluator = settings.evaluators[0]
    asked = {"dataset": settings.dataset, "ipc": 1, "architecture": "convnet", "evaluators": [evaluator]}
    lines = timed("students", **asked, policy=settings.compile, counts=counts)
    rates = [[line["seconds"] * line["students"]] for line in lines if "students" in line]
    yield from against(f"convnet, {evaluator}, students", counts, rates)


def case_of(settings, name, value):
    """A case with one size that is not the usual one."""
    if name == "classes":
        noise = {"classes": value, "of_class": settings.batch, "shape": settings.shape}
        return {"noise": noise, "batch_real": settings.batch}
    if name == "width":
        return {"pool": f"single[main=convnet[width={value}]]", "batch_real": settings.batch}
    return {name: value}


def against(what, values, measured):
    """Seconds at each value, and how many times those at the first."""
    for value, seconds in zip(values, measured, strict=True):
        row = f"{what} {value}"
        yield median_of("growth", row, "ddbench", seconds)
        yield Figure("growth", row, "to the first", median(seconds) / median(measured[0]), "times")
        yield Figure("growth", row, "size to the first", value / values[0], "times")
