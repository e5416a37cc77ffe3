"""The numbers behind a pane, for export and the clipboard."""

from __future__ import annotations

import csv
import io
import json
import math
from dataclasses import dataclass

Value = float | int | str


@dataclass(frozen=True)
class Table:
    """Columns of one length, by name."""

    name: str
    columns: dict[str, list[Value]]

    @property
    def rows(self) -> list[tuple[Value, ...]]:
        """The rows."""
        return list(zip(*self.columns.values(), strict=True))

    def csv(self) -> str:
        """Return the table as CSV with a header."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return out.getvalue()

    def json(self) -> str:
        """Return the table as JSON; what is not finite becomes null."""
        columns = {
            name: [
                None if isinstance(value, float) and not math.isfinite(value) else value for value in column
            ]
            for name, column in self.columns.items()
        }
        return json.dumps({"schema": 1, "pane": self.name, "columns": columns}, ensure_ascii=False) + "\n"

    def near(self, step: float) -> str:
        """Return the header and the row at or before a step, tab separated; the whole table without steps."""
        steps = self.columns.get("step")
        rows = self.rows
        if steps is not None and rows:
            before = [
                index for index, value in enumerate(steps) if isinstance(value, int | float) and value <= step
            ]
            rows = [rows[before[-1] if before else 0]]
        return "\n".join("\t".join(map(str, line)) for line in [tuple(self.columns), *rows]) + "\n"
