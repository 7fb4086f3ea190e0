"""Entry point of ``python -m harness``, the same as ``ddbench``."""

import os
import sys


def _leave_working_folder_out() -> None:
    """Import the same modules as ``ddbench``: ``-m`` puts the working folder, with the user's own files, first.

    If this package itself lies there, as in a checkout that is not installed, the folder stays, for jobs too.
    """
    folder, package = os.getcwd(), os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
    if sys.flags.safe_path or sys.path[:1] != [folder]:
        return
    if os.path.realpath(package) != os.path.realpath(folder):
        sys.path.pop(0)
        return
    paths = [folder, *filter(None, [os.environ.get("PYTHONPATH")])]
    os.environ["PYTHONPATH"] = os.pathsep.join(paths)


if __name__ == "__main__":
    _leave_working_folder_out()
    from harness.cli import main  # after that: its imports must not come from there

    main()
