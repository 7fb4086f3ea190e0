"""The word before torch is imported: only if that takes long, and never where torch is not needed."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from harness.cli import torch_notice


@pytest.fixture
def library(tmp_path):
    """A package whose library is large, and whose module has been compiled."""
    origin = tmp_path / "torch" / "__init__.py"
    (origin.parent / "lib").mkdir(parents=True)
    origin.write_text("")
    (origin.parent / "lib" / "libtorch_cpu.so").write_bytes(b"x" * 10**6)
    compiled = Path(importlib.util.cache_from_source(str(origin)))
    compiled.parent.mkdir()
    compiled.write_bytes(b"")
    return origin


def test_a_warm_start_is_not_slow(library):
    assert torch_notice.share_in_memory(library.parent / "lib" / "libtorch_cpu.so") > 0.9
    assert not torch_notice.is_slow(library)


def test_what_has_not_been_compiled_or_read_is_slow(library, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(torch_notice, "share_in_memory", lambda file: 0.1)
        assert torch_notice.is_slow(library)
    Path(importlib.util.cache_from_source(str(library))).unlink()
    assert torch_notice.is_slow(library)


def test_what_cannot_be_known_is_not_said(tmp_path):
    assert torch_notice.share_in_memory(tmp_path / "none") == 1.0


@pytest.mark.parametrize(("slow", "words", "said"), [(True, "doctor", 1), (False, "doctor", 0), (True, "methods", 0)])
def test_it_is_said_once_and_before(tmp_path, slow, words, said):
    """``torch`` is an empty module here, so that the test takes no time."""
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("import sys; print('IMPORTED', file=sys.stderr); raise ImportError")
    code = f"""
import sys
sys.path.insert(0, {str(tmp_path)!r})
from harness.cli import main, torch_notice
torch_notice.is_slow = lambda origin: {slow}
sys.argv[1:] = [{words!r}]
main()
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert result.stderr.count("importing torch") == said
    if said:
        assert result.stderr.index("importing torch") < result.stderr.index("IMPORTED")
