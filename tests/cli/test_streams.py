"""How commands end if nobody reads them, or if stdout, stderr and stdin are closed, full or of another encoding."""

import io
import json
import os
import subprocess
import sys

import pytest
from studies import small_run
from synthetic import set_record, student_record, write_store

from harness.cli import errors, streams
from harness.report.tables.run_table import print_table
from tests.report.test_table import ROW

DDBENCH = [sys.executable, "-c", "from harness.cli import main; main()"]
FULL = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    records = []
    for pool in ("single", "main-é"):
        of = set_record(pool=pool)
        records += [of, *(student_record(of, student=n, accuracy=0.3 + n / 10) for n in (0, 1))]
    return write_store(tmp_path_factory.mktemp("streams") / "store", records)


def shell(redirection, *words, **environment):
    """A command of ``ddbench`` with redirections, as a shell does them."""
    command = " ".join([sys.executable, "-c", "'from harness.cli import main; main()'", *map(str, words), redirection])
    return subprocess.run(["bash", "-c", command], capture_output=True, env={**os.environ, **environment},
                          stdin=subprocess.DEVNULL, timeout=120, check=False)  # fmt: skip


@pytest.mark.parametrize("redirection", [">&-", "<&- >&- 2>&-", "2>&- <&-"])
def test_closed_streams_are_no_error(store, redirection):
    result = shell(redirection, "compare", store)
    assert (result.returncode, result.stderr) == (0, b"")


@FULL
@pytest.mark.parametrize("redirection", ["> /dev/full", "1< /dev/null"])
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_what_cannot_be_written_is_one_line(store, redirection, unbuffered):
    result = shell(redirection, "compare", store, PYTHONUNBUFFERED=unbuffered)
    assert result.returncode == 2
    (line,) = result.stderr.decode().splitlines()
    assert line.startswith("ddbench: error: ")
    assert "stdout cannot be written" in line


@FULL
def test_an_unwritable_stderr_changes_no_status(store):
    assert shell("2> /dev/full", "compare", store).returncode == 0
    assert shell("2> /dev/full > /dev/full", "compare", store).returncode == 2
    assert shell("2> /dev/full", "results", "show", "nope", "--store", store).returncode == 2


@pytest.mark.parametrize("words", [["methods"], ["compare", "STORE"], ["results", "list", "--store", "STORE"]])
def test_a_reader_that_goes_away_is_reported_by_the_exit_status(store, words):
    reader, writer = os.pipe()
    os.close(reader)
    words = [str(store) if word == "STORE" else word for word in words]
    with os.fdopen(writer, "w") as closed:
        result = subprocess.run([*DDBENCH, *words], stdout=closed, stderr=subprocess.PIPE, timeout=120, check=False)
    assert (result.returncode, result.stderr) == (errors.BROKEN_PIPE, b"")


def test_a_table_says_so_too_if_nobody_reads_on():
    """Rich alone would end the process with 1, by which a run says that cells failed."""

    class Unread(io.StringIO):
        def write(self, text):
            raise BrokenPipeError

    with pytest.raises(BrokenPipeError):
        print_table([ROW], (), Unread())


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "cp437:strict", "utf-16"])
def test_every_encoding_takes_all_output(store, encoding):
    plain = encoding.partition(":")[0]
    for words in (["compare", store], ["results", "list", "--store", store]):
        result = shell("", *words, PYTHONIOENCODING=encoding)
        assert (result.returncode, result.stderr) == (0, b"")
        text = result.stdout.decode(plain)
        assert "main-é" in text or "main-\\xe9" in text
        assert words[0] == "results" or "35.0" in text
    result = shell("", "results", "list", "--store", store, "--json", PYTHONIOENCODING=encoding)
    assert "main-é" in json.dumps(json.loads(result.stdout.decode(plain)), ensure_ascii=False)


def test_a_locale_without_unicode(store):
    result = shell("", "compare", store, LC_ALL="C", PYTHONCOERCECLOCALE="0", PYTHONUTF8="0")
    assert result.returncode == 0
    assert "+-" in result.stdout.decode("ascii")


# --- stderr that nobody reads -----------------------------------------------------------------------------------------


def test_progress_that_nobody_reads_does_not_end_the_work(data, tmp_path, monkeypatch):
    from studies import SMALL

    from harness.api.runs import run_request
    from harness.cli.options import show
    from harness.planning.request import request_from

    reader, writer = os.pipe()
    os.close(reader)
    request = request_from({**SMALL, "students": 1, "dataset": f"arrays[path={data}]", "store": str(tmp_path)})
    with streams.Progress(os.fdopen(writer, "wb"), encoding="utf-8", line_buffering=True) as unread:
        monkeypatch.setattr(sys, "stderr", unread)
        show(lambda reporter: run_request(request, reporter), as_json=False)
        print("what a plugin prints is dropped too", file=sys.stderr)
        monkeypatch.undo()
    assert not small_run(data, tmp_path, students=1).failed


def test_undecodable_names_come_out_as_they_went_in():
    stream = streams.Output(io.BytesIO(), encoding="utf-8", errors="strict")
    streams.prepare_handler()
    stream.reconfigure(errors=streams.HANDLER)
    stream.write("a\udcffb ± \ud800")
    stream.flush()
    assert stream.buffer.getvalue() == b"a\xffb \xc2\xb1 \\ud800"
