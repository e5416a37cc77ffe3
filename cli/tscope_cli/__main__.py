"""`python -m tscope_cli`: the `tscope` program, for interpreters whose scripts are not on the PATH."""

from tscope_cli.main import main

if __name__ == "__main__":
    main()
