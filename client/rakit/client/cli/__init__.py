"""The `rakit` command.

`main` declares the commands, one module per command does the work and is imported when it runs, so
that `rakit --help` does not load gRPC. `output` prints tables, JSON and YAML; `running` turns
errors into one line and an exit code.
"""
