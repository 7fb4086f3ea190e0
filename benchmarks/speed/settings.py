"""What is measured, and at which sizes."""

from dataclasses import dataclass

METHODS = ("dc", "dsa")
PRECISIONS = ("fp32", "bf16")
SIZES = ("ipc", "classes", "width", "batch_real", "students")
ARCHITECTURES = ("mlp", "convnet", "lenet", "alexnet", "vgg11", "resnet18")


@dataclass(frozen=True)
class Settings:
    """Sizes of all parts; `QUICK` has small ones, to try the command out.

    Attributes:
        methods: that match gradients along outer and inner loops; the other implementations are timed beside them.
        count: iterations of a round; 0 is three at ipc 1, and else one.
        computed_ipc: of an iteration that is too long to be measured: its parts are; 0 is none.
        inner: epochs of an inner loop by which the time of one is known.
        of_class: training images of each class, so that mtt's experts are soon there.
        batches: images that a convolution takes at once; ``images`` in one measurement of its rate.
        compile: whether networks are compiled that gain by it, as ``ddbench run --compile`` takes it.
        sizes: whose growth is measured; ``growth`` has the values of each. ``classes`` are noise of ``shape``, with
            ``batch`` images of each in a step; ``students`` are ConvNets by the first evaluator.
    """

    dataset: str = "digits"
    repeats: int = 3
    methods: tuple = METHODS
    ipc: tuple = (1, 10)
    count: int = 0
    computed_ipc: int = 50
    precisions: tuple = PRECISIONS
    cheap: tuple = ("dm", "mtt[experts=1,train_epochs=2]")
    inner: int = 5
    of_class: int = 256
    evaluators: tuple = ("plain", "kd")
    architectures: tuple = ARCHITECTURES
    shape: tuple = (3, 32, 32)
    batch: int = 32
    memory_classes: tuple = (10, 100)
    memory_batch: int = 256
    growth: tuple = (
        ("ipc", (1, 2, 5, 10)),
        ("classes", (10, 100)),
        ("width", (32, 64, 128)),
        ("batch_real", (32, 64, 128, 256)),
        ("students", (1, 2, 4)),
    )
    sizes: tuple = SIZES
    compile: str = "auto"
    matrix: int = 2048
    batches: tuple = (32, 256)
    images: int = 256
    others: tuple = ()
    other_students: tuple = ()


QUICK = Settings(
    repeats=1, methods=("dc[batch_real=2,inner=2]",), ipc=(1, 2), computed_ipc=3, precisions=("fp32",), inner=2,
    of_class=4, cheap=("dm[batch_real=2]", "mtt[experts=1,train_epochs=2,steps=2]"), architectures=("mlp",),
    evaluators=("plain[epochs=2]", "kd[protocol=quick,epochs=2,teacher=mlp]"), shape=(1, 8, 8), batch=8,
    memory_classes=(10,), memory_batch=8, matrix=256, batches=(2,), images=2,
    growth=(("ipc", (1, 2)), ("classes", (2, 10)), ("width", (16, 32)), ("batch_real", (8, 16)), ("students", (1, 2))),
    compile="never",
)  # fmt: skip
