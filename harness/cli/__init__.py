"""The command line: ``ddbench``."""


def main() -> None:
    """Run ``ddbench`` with the arguments of this process, and exit."""
    from harness.cli.errors import clean_exit  # here, so that importing a command's module does not import the others
    from harness.cli.group import cli
    from harness.cli.streams import prepare_streams
    from harness.cli.torch_notice import announce_slow_import

    # Before anything else: even the first warning must not fail on a closed or full stream.
    prepare_streams()
    announce_slow_import()
    # Around everything, also around the exit of click, so that a failing last flush is one line too.
    with clean_exit():
        cli(prog_name="ddbench")
