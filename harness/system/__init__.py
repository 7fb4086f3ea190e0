"""The lowest floor: files, memory, signals, processes and the clock, and bounded JSON; needs only `harness.errors`."""
