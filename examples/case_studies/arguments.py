"""What every case study is asked on the command line."""

import argparse
from pathlib import Path


def study_parser(description: str | None, name: str, quick: str) -> argparse.ArgumentParser:
    """Return a parser with the options that all studies have.

    Args:
        description: The study's own documentation.
        name: Of its folder for traces and results.
        quick: What --quick makes of it.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--seeds", type=int, help="how many seeds (default: 3)")
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time")
    parser.add_argument("--out", type=Path, default=Path("runs") / name, help="folder for traces and results")
    parser.add_argument(
        "--docs", action="store_true", help="renew figures, CSV and tables in docs/case_studies"
    )
    return parser


def parse_study(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parse the command line; the documentation shows full studies only."""
    args = parser.parse_args()
    if args.docs and args.quick:
        parser.error("--docs shows the full study: leave out --quick")
    args.seeds = args.seeds or (1 if args.quick else 3)
    return args
