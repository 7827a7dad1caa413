"""`sspsam annotate INPUT OUTPUT`: image/caption shards in, mask annotations out, on Ray Data."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from jobs.options import exit_code
from pipeline.annotate.annotate_config import AnnotateConfig, flag, load_yaml, option_fields
from sspsam.errors import ConfigError, SSPSAMError, UnknownModelError

EPILOG = """\
The same command again resumes. Exit codes: 0 every image is accounted for; 1 not so, see what is said;
2 the options cannot work; 130 interrupted. docs/operations.md tells how to run it on a cluster."""


def build_parser() -> argparse.ArgumentParser:
    """One flag for each field of `annotate_config`; absent flags stay out of the namespace."""
    parser = argparse.ArgumentParser(
        prog="sspsam annotate",
        description=__doc__,
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument("--config", metavar="FILE", help="YAML file of options; flags win over it")
    for name, field in option_fields().items():
        details = dict(field.metadata)
        default = field.default
        known = {"help": details["help"]}
        if default not in (None, "", False) and isinstance(default, (str, int, float)):
            known["help"] += f" (default: {default})"
        known["help"] = known["help"].replace("%", "%%")
        if details.get("positional"):
            # Optional here, because --config may hold it; what is missing is said by name.
            parser.add_argument(name, nargs="?", metavar=name.upper(), **known)
        elif field.default is False:
            parser.add_argument(flag(name), action="store_true", **known)
        elif "optional_value" in details:
            parser.add_argument(
                flag(name),
                nargs="?",
                const=details["optional_value"],
                metavar=details["metavar"],
                **known,
            )
        else:
            shown = {"choices": details["choices"]} if "choices" in details else {"metavar": _metavar(name)}
            parser.add_argument(flag(name), **shown, **known)
    return parser


def _metavar(name: str) -> str:
    """What stands for the flag's value in the help page."""
    names = {"replicas": "MIN:MAX", "phrases": "SOURCE", "model": "SOURCE", "captions": "FILE"}
    kinds = {"int": "N", "float": "X", "dict": "JSON"}
    kind = str(option_fields()[name].type).partition(" ")[0].partition("[")[0]
    return names.get(name) or kinds.get(kind) or name.rpartition("_")[2].upper()


def options(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """The options of a command line: flags over the YAML file that --config names."""
    given = vars(build_parser().parse_args(argv))
    path = given.pop("config", None)
    from_file = {k.replace("-", "_"): v for k, v in load_yaml(path).items()} if path else {}
    return from_file | given


def main(argv: Sequence[str] | None = None) -> int:
    """Annotate. Returns the exit code (see --help)."""
    return exit_code("annotate", "pipeline,s3", lambda: _annotate(argv))


def _annotate(argv: Sequence[str] | None) -> int:
    try:
        config = AnnotateConfig.from_options(options(argv))
        if config.output.dry_run:
            from pipeline.annotate.dry_run import dry_run

            dry_run(config).print()
            return 0
        from pipeline.annotate.job import annotate

        summary = annotate(config)
    except (ConfigError, UnknownModelError):
        raise  # the same command will never work
    except SSPSAMError as error:
        print(f"sspsam annotate: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("interrupted; the same command resumes", file=sys.stderr)
        return 130
    summary.print()
    return summary.exit_code


if __name__ == "__main__":
    sys.exit(main())
