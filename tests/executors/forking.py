"""A launcher for tests: it imports what the environment says, and leaves orphans to themselves.

``python -P -m forking CHANNEL`` is started as the launcher is; ``python -P -m forking TAG FOLDER WORDS...``, run by it,
is ``ddbench WORDS...`` in a folder, with a variable by which every process that it starts can be found.
"""

import os
import sys

from harness.executors import local_launcher as launcher
from harness.running.processes.child_process import exit_now

TAG, IMPORTS = "FORKED_BY_TEST", "LAUNCHER_IMPORTS"

if __name__ == "__main__":
    if len(sys.argv) == 2:
        needed = os.environ.get(IMPORTS)
        launcher.NEEDED = launcher.NEEDED if needed is None else tuple(needed.split())
        launcher.launcher().serve()
        exit_now(0)
    else:
        from harness.cli import main

        _, os.environ[TAG], folder, *sys.argv[1:] = sys.argv
        os.chdir(folder)
        main()
