"""Work in a forked process that may take little more memory than it has."""

import resource

from harness.testing.fresh import fork_server


def within(megabytes, function, *arguments):
    """What ``function`` returns, or the exception that it raises, in a process that may map so much more data."""
    context = fork_server()
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_limited, args=(theirs, megabytes, function, arguments))
    process.start()
    theirs.close()
    try:
        outcome = ours.recv()
    except EOFError:
        process.join(60)
        raise AssertionError(f"the process ended with {process.exitcode}") from None
    process.join(60)
    return outcome


def _limited(pipe, megabytes, function, arguments):
    with open("/proc/self/status") as status:
        used = next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmData:"))
    resource.setrlimit(resource.RLIMIT_DATA, (used + megabytes * 2**20,) * 2)
    try:
        outcome = function(*arguments)
    except Exception as error:
        outcome = f"{type(error).__name__}: {error}"
    pipe.send(outcome)
