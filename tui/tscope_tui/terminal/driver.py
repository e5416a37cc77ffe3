"""The terminal driver, with a mouse that can be turned on and off, and that is silent between clicks."""

from __future__ import annotations

import os

from textual.drivers.linux_driver import LinuxDriver


class TerminalDriver(LinuxDriver):
    """Textual's driver; it reports clicks only, since every motion of a mouse would cost bytes over SSH."""

    def _enable_mouse_support(self) -> None:
        if self._mouse:
            self.write("\x1b[?1000h\x1b[?1006h")
            self.flush()

    def set_mouse(self, wanted: bool) -> None:
        """Turn the mouse on or off."""
        if wanted:
            self._mouse = True
            self._enable_mouse_support()
        else:
            self._disable_mouse_support()
            self._mouse = False

    def _get_terminal_size(self) -> tuple[int, int]:
        # Textual would believe COLUMNS and LINES, and keep to them when the terminal is resized.
        try:
            width, height = os.get_terminal_size(self.fileno)
        except OSError:
            width = height = 0
        return (width, height) if width and height else super()._get_terminal_size()
