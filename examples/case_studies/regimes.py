"""Layerwise linear models, grokking and neural collapse, after Nam et al.

linear      networks of two linear layers against closed forms: singular modes and the error that steps make,
            skills and when they emerge, balancedness, and runs from lazy to rich;
grokking    a network that is lazy at first and generalises when weight decay has shrunk it: when it fits and
            generalises, its effective parameters and its kernel;
collapse    NC1 to NC4 on the ten digits of MNIST, with squared error and with cross-entropy.
Every run is a script beside this one under `tscope record`, and every number is from `tscope analyze`. Writes
a figure and a CSV table for each part.

    python examples/case_studies/regimes.py            # three seeds
    python examples/case_studies/regimes.py --quick    # one seed, fewer and shorter runs

Source: Nam et al., "Position: Solve Layerwise Linear Models First to Understand Neural Dynamical Phenomena".
"""

import regimes_collapse
import regimes_grokking
import regimes_linear
from arguments import parse_study, study_parser
from study import DOCS, renew_table
from subject import examine

PARTS = {"linear": regimes_linear, "grokking": regimes_grokking, "collapse": regimes_collapse}
PAGE = "regimes.md"


def main() -> None:
    parser = study_parser(__doc__, "regimes", "one seed, fewer and shorter runs")
    parser.add_argument("--part", nargs="+", choices=list(PARTS), default=list(PARTS))
    args = parse_study(parser)
    places = [args.out, DOCS] if args.docs else [args.out]
    for name in args.part:
        part = PARTS[name]
        found = examine(part.subjects(args.quick, range(args.seeds)), args.out, args.jobs)
        for place in places:
            part.tabulate(found, place / f"regimes_{name}.csv")
        part.draw(found, [place / f"regimes_{name}.svg" for place in places])
        text = part.table(found)
        print(text)
        if args.docs:
            renew_table(f"regimes_{name}", text, PAGE)


if __name__ == "__main__":
    main()
