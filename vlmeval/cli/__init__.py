"""The command line: `vlmeval run`, `vlmeval list`. Without a command's name, `run` is meant."""
