"""`sspsam annotate INPUT OUTPUT`: image/caption shards in, mask annotations out, on Ray Data."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Annotated, Any

from jobs.options import FLAT, arguments, command_app, flags_of, given, run, stopped, with_kind
from pipeline.annotate.annotate_config import SECTIONS, AnnotateConfig
from pipeline.sources.flags import StorageOptions, load_yaml
from sspsam.errors import ConfigError, SSPSAMError, UnknownModelError
from sspsam.storage.secrets import redact

EPILOGUE = """\
The same command again resumes. Exit codes: 0 every image is accounted for; 1 not so, see what is said; \
2 the options cannot work; 130 stopped by Ctrl-C; 143 by SIGTERM. \
docs/operations.md tells how to run it on a cluster."""
#: Flags win over --config, so INPUT and OUTPUT may stand there: what is missing is said by name.
Flags = flags_of(
    *SECTIONS, without=("input", "output"), storage_options=StorageOptions, model_options=StorageOptions
)


def main(argv: Sequence[str] | None = None) -> int:
    """Annotate. Returns the exit code (see --help)."""
    return run(annotate, with_kind(arguments(argv)), "pipeline,s3", EPILOGUE)


def annotate(
    input: str | None = None,
    output: str | None = None,
    /,
    *,
    config: str | None = None,
    flags: Annotated[Flags | None, FLAT] = None,  # type: ignore[valid-type]
) -> int:
    """Image/caption shards in, mask annotations out, on Ray Data.

    Args:
        input: URL, glob, folder, or text file of URLs
        output: folder or URL of the annotation dataset
        config: YAML file of options; flags win over it
    """
    return _annotate(settings(config, {"input": input, "output": output} | given(flags)))


def parse(argv: Sequence[str]) -> AnnotateConfig:
    """The settings that a command line says. Raises ConfigError, and cyclopts' own errors."""
    app = command_app(annotate)
    _, bound, _ = app.parse_args(with_kind(argv), exit_on_error=False, print_error=False)
    places = dict(zip(("input", "output"), bound.args, strict=False))
    return settings(bound.kwargs.get("config"), places | given(bound.kwargs.get("flags")))


def settings(config: str | None, flags: dict[str, Any]) -> AnnotateConfig:
    """The settings of a run: the flags that are not None, over the YAML file `config`. Raises ConfigError."""
    from_file = {name.replace("-", "_"): value for name, value in load_yaml(config).items()} if config else {}
    return AnnotateConfig.from_options(
        from_file | {name: value for name, value in flags.items() if value is not None}
    )


def _annotate(config: AnnotateConfig) -> int:
    try:
        if config.output.dry_run:
            from pipeline.annotate.dry_run import dry_run

            dry_run(config).print()
            return 0
        from pipeline.annotate import job

        summary = job.annotate(config)
    except (ConfigError, UnknownModelError):
        raise  # the same command will never work
    except SSPSAMError as error:
        print(f"sspsam annotate: {redact(str(error))}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        return stopped(stop, "sspsam annotate", "; what is finished is written, the same command resumes")
    summary.print()
    return summary.exit_code


if __name__ == "__main__":
    sys.exit(main())
