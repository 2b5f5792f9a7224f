"""The command line: parses, calls one command, prints its result."""
