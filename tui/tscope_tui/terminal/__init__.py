"""The terminal itself, by Textual: colours, the surface that is painted on, and the program."""
