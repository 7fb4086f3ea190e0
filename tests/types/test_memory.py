"""The memory that there is, and work that is refused because it is known to need more."""

import resource

import pytest

from harness import DataError, require_memory
from harness.system import memory

TB = 2**40


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """A machine of 8 GB without limits, whose files a test writes."""
    monkeypatch.setattr(memory, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(memory, "_PROCESS", tmp_path / "process")
    monkeypatch.setattr(memory.os, "sysconf", {"SC_PHYS_PAGES": 2 * 10**6, "SC_PAGE_SIZE": 4000}.__getitem__)
    monkeypatch.setattr(memory.resource, "getrlimit", lambda kind: (resource.RLIM_INFINITY, resource.RLIM_INFINITY))

    def write(**files):
        for name, content in files.items():
            path = tmp_path / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)

    return write


def test_all_that_the_machine_has(machine):
    assert memory.memory_limit() == memory.MemoryLimit(8 * 10**9, "all that this machine has")


V1 = "cgroup__memory__{}memory.limit_in_bytes"


@pytest.mark.parametrize(
    ("groups", "files"),
    [
        ("0::/a/b\n", {"cgroup__a__b__memory.max": "max\n", "cgroup__a__memory.max": "5000\n"}),
        ("0::/a/b\n", {"cgroup__a__b__memory.max": "5000\n", "cgroup__a__memory.max": "6000\n"}),
        ("0::/not/seen/from/here\n", {"cgroup__memory.max": "5000\n"}),
        ("4:memory:/x\n0::/\n", {V1.format("x__"): "5000\n"}),
        ("4:cpu,memory:/x\n", {V1.format(""): "5000", V1.format("x__"): str(2**63 - 4096)}),
    ],
)
def test_the_tightest_control_group_of_either_version(machine, groups, files):
    machine(process__cgroup=groups, **files)
    limit = memory.memory_limit()
    assert limit.size == 5000
    assert "control group" in limit.source


@pytest.mark.parametrize(("kind", "field"), [(resource.RLIMIT_AS, "VmSize"), (resource.RLIMIT_DATA, "VmData")])
def test_what_is_left_of_a_limit_of_the_process(machine, monkeypatch, kind, field):
    limits = {kind: 10 * 1024}
    monkeypatch.setattr(memory.resource, "getrlimit", lambda asked: (limits.get(asked, resource.RLIM_INFINITY), 0))
    machine(process__status=f"Name:\tx\n{field}:\t   4 kB\n")
    assert memory.memory_limit().size == 6 * 1024
    machine(process__status=f"{field}:\t   40 kB\n")
    assert memory.memory_limit().size == 0


def test_a_system_that_reports_nothing_refuses_nothing(machine, monkeypatch):
    monkeypatch.setattr(memory.os, "sysconf", {}.__getitem__, raising=True)
    monkeypatch.setattr(memory.os, "sysconf", lambda name: (_ for _ in ()).throw(ValueError(name)))
    assert memory.memory_limit() is None
    require_memory(TB, "everything", "wait")


def test_one_line_with_both_numbers_and_the_remedy(machine):
    require_memory(8 * 10**9, "a kernel of 10 images", "use fewer")
    with pytest.raises(DataError) as caught:
        require_memory(123_400_000_000, "a kernel of 175,000 images", "use fewer images")
    assert str(caught.value) == (
        "a kernel of 175,000 images would need 123.4 GB of memory, but all that this machine has is 8.0 GB: "
        "use fewer images"
    )


def test_this_machine_has_a_limit():
    assert memory.memory_limit().size > 10**8
