import pytest

from harness.errors import DataError, DDBenchError, PluginError, StoreError, UsageError, did_you_mean


@pytest.mark.parametrize(
    ("word", "known", "phrase"),
    [
        ("convnte", ["lenet", "mlp", "convnet"], "did you mean 'convnet'?"),
        ("vgg1", ["vgg11", "resnet18", "mlp"], "did you mean 'vgg11'?"),
        ("colour", ["color", "contour", "mlp"], "did you mean 'color' or 'contour'?"),
        ("qqq", ["b", "a", "b"], "there is a, b"),
        ("qqq", [], "there is none"),
    ],
)
def test_the_nearest_words_or_all(word, known, phrase):
    assert did_you_mean(word, known) == phrase


def test_every_error_is_one_that_the_user_can_mend():
    assert all(issubclass(error, DDBenchError) for error in (DataError, PluginError, StoreError, UsageError))
