"""The command line: one file a command, and the only package that prints.

`main` holds the entry point, `commands` the table of commands; a command's module is imported when it is
called.
"""
