"""The machine that the numbers are made on."""

import mmap

import pytest
import torch

from harness.compute.machine import (
    Compute,
    choose_device,
    keep_large_tensors_mapped,
    peak_memory,
    reset_peak_memory,
)
from harness.errors import UsageError

CPU = torch.device("cpu")


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_auto_is_the_cpu_where_there_is_no_gpu(no_gpu):
    assert choose_device("auto") == choose_device("cpu") == CPU


@pytest.mark.parametrize("name", ["cuda", "cuda:0", "cuda:7", "tpu", "", "mps", "meta", "gpu"])
def test_a_device_that_is_not_here_is_an_error_that_names_it(no_gpu, name):
    with pytest.raises(UsageError) as refused:
        choose_device(name)
    assert f"--device {name}" in str(refused.value)
    assert "cpu" in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_gpu_beyond_the_last_is_an_error_that_names_how_many_there_are(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert choose_device("cuda:1") == torch.device("cuda:1")
    assert choose_device("auto") == torch.device("cuda")
    with pytest.raises(UsageError, match="only 2 GPUs"):
        choose_device("cuda:2")


def test_memory_policy_says_whether_the_c_library_took_it(monkeypatch):
    assert keep_large_tensors_mapped() in (True, False)

    def missing(name):
        raise OSError(name)

    monkeypatch.setattr("ctypes.CDLL", missing)
    assert keep_large_tensors_mapped() is False


def test_peak_memory_grows_with_what_is_held():
    reset_peak_memory(CPU)
    before = peak_memory(CPU)
    with mmap.mmap(-1, 2**25) as held:  # 32 MB of pages that were nobody's: a tensor may get those freed before
        held.write(b"x" * 2**25)
        assert 0 < before < peak_memory(CPU)
        assert peak_memory(CPU) - before <= 2**27


def test_peak_memory_is_measured_without_proc(monkeypatch):
    def missing(self, *args):
        raise OSError

    monkeypatch.setattr("pathlib.Path.read_text", missing)
    monkeypatch.setattr("pathlib.Path.write_text", missing)
    reset_peak_memory(CPU)
    assert peak_memory(CPU) > 1_000_000


def test_the_compute_mode_is_recorded():
    mode = Compute.of(CPU)
    assert (mode.device, mode.threads, mode.torch_version) == ("cpu", torch.get_num_threads(), torch.__version__)
