"""The command line: ``ddbench``."""


def main() -> None:
    """Run ``ddbench`` with the arguments of this process, and exit."""
    from harness.cli.errors import clean_exit  # here, so that importing a command's module does not import the others
    from harness.cli.group import cli

    with clean_exit():
        cli(prog_name="ddbench")
