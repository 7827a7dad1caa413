"""`sspsam view OUTPUT`: browse, filter and review an annotation dataset in the browser."""

from __future__ import annotations

import argparse
import contextlib
import sys
import webbrowser
from collections.abc import Sequence

from jobs.options import add_storage_options, exit_code, storage_options


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
    add_storage_options(parser)
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    """Returns 0 once interrupted, or 2 for a wrong flag or dataset."""
    return exit_code("view", "curate", lambda: _view(build_parser().parse_args(argv)))


def _view(arguments: argparse.Namespace) -> int:
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
        storage_options=storage_options(arguments),
    )

    def announce(url: str) -> None:
        print(f"Viewing {arguments.output} at {url}  (Ctrl-C ends it)", flush=True)
        if arguments.open:
            webbrowser.open(url)

    with contextlib.suppress(KeyboardInterrupt):
        serve(config, announce)
    return 0


if __name__ == "__main__":
    sys.exit(main())
