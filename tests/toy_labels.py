"""Methods with regression labels and schedules, and evaluators that name kinds, as a plugin brings them."""

from harness import Method, Options
from harness.testing.small import small_set
from mpdd_plugins.evaluators.plain import Plain


class Toy(Method[Options]):
    """Takes the first real images of each class, and learns nothing."""

    uses_pool = False
    iterates = False
    kind = "hard"
    scheduled = False

    def step(self, iteration, networks):
        return {}

    def distilled(self):
        whole = small_set(self.task.problem, self.task.ipc, kind=self.kind, scheduled=self.scheduled)
        return self.task.distilled(whole.images, whole.labels, label_kind=whole.label_kind, schedule=whole.schedule)

    def learned(self):
        return {}

    def state(self):
        return {}

    def restore(self, state):
        pass


class Centred(Toy):
    """Labels of real values."""

    kind = label_kind = "regression"


class Stepwise(Toy):
    """Two steps."""

    scheduled = has_schedule = True


class Secretive(Toy):
    """Does not declare the labels of real values."""

    kind = "regression"


class Sudden(Toy):
    """Does not declare its schedule."""

    scheduled = True


class Wrong(Toy):
    """Declares another kind."""

    label_kind = "soft"


class Hard(Plain):
    """Takes class indices alone."""

    label_kinds = ("hard",)


class Late(Toy):
    """Gives weights and declares nothing, as methods may that were written before there were kinds."""

    kind = "soft"


class Misspelt(Plain):
    """Names a kind that there is not."""

    label_kinds = ("hrad",)


ENTRIES = {
    **{cls.__name__.lower(): "method" for cls in (Centred, Stepwise, Secretive, Sudden, Wrong, Late)},
    "hard": "evaluator",
    "misspelt": "evaluator",
}
