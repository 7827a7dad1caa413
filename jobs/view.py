"""`sspsam view OUTPUT`: browse, filter and review an annotation dataset in the browser."""

from __future__ import annotations

import argparse
import json
import sys
import webbrowser
from collections.abc import Sequence

from sspsam.errors import ConfigError, SSPSAMError


def build_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="sspsam view",
        description="A local web page over an annotation dataset: look at masks, search, filter, sort "
        "worst first, give verdicts. Verdicts go to OUTPUT/reviews/, never into the annotations.",
    )
    parser.add_argument("output", help="annotation dataset: a folder or URL (s3://bucket/output)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument("--port", type=int, default=8642, help="0 takes a free one (%(default)s)")
    parser.add_argument(
        "--token", help="secret to ask for; made up if --host is reachable from other machines"
    )
    parser.add_argument(
        "--allowed-host",
        action="append",
        default=[],
        metavar="NAME",
        help="a further name under which browsers may reach the server, as behind a proxy",
    )
    parser.add_argument("--model", help="also offer attention maps of this model ('tiny', folder, URL)")
    parser.add_argument("--device", help="torch device of --model")
    parser.add_argument(
        "--index", metavar="FILE", help="keep the index in this DuckDB file, to open faster next time"
    )
    parser.add_argument(
        "--memory-mb", type=int, default=2048, help="DuckDB's memory limit, MiB (%(default)s)"
    )
    parser.add_argument(
        "--cache-mb", type=int, default=256, help="thumbnails kept in memory, MiB (%(default)s)"
    )
    parser.add_argument("--threads", type=int, default=8, help="parallel reads (%(default)s)")
    parser.add_argument("--storage-options", default="{}", metavar="JSON", help="options of fsspec, as JSON")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    return parser


def storage_options(text: str) -> dict[str, object]:
    """The object that --storage-options holds. Raises ConfigError."""
    try:
        options = json.loads(text)
    except ValueError as error:
        raise ConfigError(f"--storage-options is not JSON: {error}") from error
    if not isinstance(options, dict):
        raise ConfigError("--storage-options must be a JSON object, such as '{\"anon\": true}'")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    arguments = build_parser().parse_args(argv)
    try:
        from pipeline.view import ViewConfig, serve

        config = ViewConfig(
            output=arguments.output,
            host=arguments.host,
            port=arguments.port,
            token=arguments.token,
            allowed_hosts=tuple(arguments.allowed_host),
            model=arguments.model,
            device=arguments.device,
            index_path=arguments.index,
            memory_mb=arguments.memory_mb,
            cache_mb=arguments.cache_mb,
            threads=arguments.threads,
            storage_options=storage_options(arguments.storage_options),
        )

        def announce(url: str) -> None:
            print(f"Viewing {arguments.output} at {url}  (Ctrl-C ends it)", flush=True)
            if arguments.open:
                webbrowser.open(url)

        serve(config, announce)
    except ModuleNotFoundError as error:
        if error.name not in ("duckdb", "starlette", "uvicorn"):
            raise
        print(f"sspsam view: needs {error.name}: pip install 'sspsam[curate]'", file=sys.stderr)
        return 1
    except SSPSAMError as error:
        print(f"sspsam view: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        pass
    return 0


if __name__ == "__main__":
    sys.exit(main())
