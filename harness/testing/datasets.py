"""The contract of data sets."""

import tempfile
from functools import cached_property
from pathlib import Path
from typing import Any
from unittest import SkipTest

from harness.datasets.checks import check_images
from harness.datasets.problems import data_root, make_problem
from harness.errors import DataError, DDBenchError, UsageError
from harness.planning.set_options import KINDS
from harness.plugins.discovery import plugins
from harness.plugins.returns import returned
from harness.testing.contract import Contract, finite, require
from harness.types.data.class_names import check_class_names
from harness.types.dataset import Dataset, DatasetOptions, RawData, Traits
from harness.types.names import Name


class DatasetContract(Contract):
    """The obligations of every data set; checks that need images are skipped if their files are missing."""

    kind = "dataset"

    def test_options_derive(self) -> None:
        """Its options are those of every data set, and its own."""
        options = self.resolved().cls.Options
        require(issubclass(options, DatasetOptions), f"{options.__name__} does not derive from DatasetOptions")

    def test_missing_files_are_named(self) -> None:
        """Without files, it does without, or a DataError says in one line where to put what."""
        # An empty folder is what every new user has.
        with tempfile.TemporaryDirectory() as empty:
            try:
                self.component().load(Path(empty))
            except DataError as error:
                require("\n" not in str(error), f"the error has more than one line: {error}")
            except DDBenchError:
                raise
            except Exception as error:  # the author's code
                raise AssertionError(f"it raises {type(error).__name__}, not a DataError: {error}") from error

    def test_images_and_labels(self) -> None:
        """Images are uint8 (n, channels, height, width), labels int64 (n,), and every class is in both splits."""
        check_images(self.raw, self.name)

    def test_classes(self) -> None:
        """Classes have different names, and what is known before the images are read agrees with them."""
        classes = self.raw.classes
        require(isinstance(classes, tuple) and all(isinstance(name, str) for name in classes), f"classes: {classes!r}")
        try:
            check_class_names(classes)
        except DataError as error:
            raise AssertionError(str(error)) from error
        outline = self.component().outline
        if outline is not None:
            require(outline.classes == classes, "its outline has other classes, or in another order")
            shape = tuple(self.raw.train.images.shape[1:])
            require(outline.shape == shape, f"its outline says that images are {outline.shape}, but they are {shape}")

    def test_loads_the_same(self) -> None:
        """Loaded twice, it gives the same bits."""
        first, again = self.raw, returned(self.component().load(data_root()), RawData, "load()")
        for before, after, split in ((first.train, again.train, "training"), (first.test, again.test, "test")):
            require(before.fingerprint == after.fingerprint, f"the {split} set differs")

    def test_makes_a_problem(self) -> None:
        """After splitting and preprocessing, its images are finite network inputs."""
        # Skips if the files are missing, before the problem fails on them.
        _ = self.raw
        problem = make_problem(self.resolved(), root=data_root(), score_on="validation")
        inputs = problem.preprocessing.to_inputs(problem.score.images[:8])
        require(tuple(inputs.shape[1:]) == problem.shape, f"inputs are {tuple(inputs.shape)}")
        require(finite({"inputs": inputs}), "inputs are not finite")

    def test_traits(self) -> None:
        """Its traits name components and options that exist."""
        traits = returned(self.component().traits, Traits, "traits")
        registry, defaults = plugins().registry, traits.defaults
        for name in defaults.evaluators:
            registry.resolve("evaluator", name)
        for name in defaults.architectures:
            registry.resolve("architecture", name)
        for name, options in defaults.options.items():
            entries = [entry for kind in KINDS for entry in registry.of_kind(kind) if entry.name == name]
            require(entries, f"its defaults have options for {name!r}, which is not a component")
            for entry in entries:
                entry.load().Options.from_name(Name(name, tuple(options.items())))

    def component(self) -> Dataset[Any]:
        """Return the data set."""
        dataset: Dataset[Any] = self.resolved().make()
        return dataset

    @cached_property
    def raw(self) -> RawData:
        """The images, from the folder that holds data sets."""
        try:
            loaded = self.component().load(data_root())
        except (DataError, UsageError) as error:
            raise SkipTest(str(error)) from error
        return returned(loaded, RawData, "load()")
