"""Installing a plugin's package for real, in a folder of its own beside the environment."""

import os
import subprocess
import sys


def install(package, site):
    """Build and install ``package`` into the folder ``site`` with pip, without dependencies and without an index."""
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    done = subprocess.run([*pip, "--target", str(site), str(package)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def declare(name, module, site):
    """Let a module on the path be found as the plugin of a distribution, as installing it would."""
    info = site / f"{name}-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1\n")
    (info / "entry_points.txt").write_text(f"[ddbench]\n{name} = {module}\n")


def environment(site, **more):
    """The variables of a process that finds what is installed in ``site``."""
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("DDBENCH_")}
    paths = [str(site), os.getcwd(), os.environ.get("PYTHONPATH", "")]
    return {**inherited, "PYTHONPATH": os.pathsep.join(path for path in paths if path), **more}
