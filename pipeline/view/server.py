"""The routes of `sspsam view`. Every answer is JSON, a JPEG or a static file; none is made of data
and HTML together."""

from __future__ import annotations

import json
import secrets
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import asdict, replace
from functools import wraps
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from pipeline.dataset.annotation_dataset import read_every_review, read_reviews
from pipeline.dataset.audit_sample import read_audits
from pipeline.dataset.dataset_schema import VERDICTS
from pipeline.dataset.image_query import Query, count_hits, find_hits, histogram
from pipeline.dataset.image_rows import Rows, card
from pipeline.dataset.opening import open_dataset
from pipeline.dataset.phrase_index import Index, fold
from pipeline.dataset.pictures import Pictures
from pipeline.dataset.reviews import Reviews, Verdict, votes_of
from pipeline.view.attention import Attention
from pipeline.view.security import Guard
from pipeline.view.view_config import ViewConfig
from sspsam.drawing.palette import PALETTE
from sspsam.errors import ConfigError, DataError, SSPSAMError
from sspsam.known_models import caveat

STATIC = Path(__file__).parent / "static"
MAX_BODY = 2**20  # bytes of a POST
_SHARDS_LISTED = 2000


class Viewer:
    """What the routes share. `fill` reads the dataset; it runs in the background once served."""

    def __init__(self, config: ViewConfig) -> None:
        """Raises DataError if there is no dataset, or its reviews cannot be read."""
        self.config = config
        self.dataset = open_dataset(
            config.output,
            storage_options=config.storage_options,
            image_roots=config.image_root,
            tolerant=True,
        )
        read_reviews(self.dataset)
        self.index = Index(
            self.dataset,
            path=config.index_path,
            memory_mb=config.memory_mb,
            threads=config.threads,
        )
        self.reviews = Reviews(self.index)
        self.rows = Rows(self.index, threads=config.threads)
        self.pictures = Pictures(
            self.rows,
            self.dataset,
            cache_mb=config.cache_mb,
            threads=config.threads,
        )
        self.attention = Attention(config, self.pictures)
        self.signals = self.dataset.signals()
        self.problem: str | None = None
        self.caveat: str | None = None
        #: Part of the pictures' URLs, so that no browser shows those of an earlier run from its cache.
        self.run = secrets.token_hex(4)

    def fill(self) -> None:
        """Follow the dataset: files and verdicts that are new."""
        try:
            self.index.refresh()
            self.reviews.load()
            self.caveat = caveat(self.dataset.model())
            self.problem = None
        except Exception as error:  # the thread's end: the page must say why, whatever it is
            known = isinstance(error, SSPSAMError | OSError)
            self.problem = str(error) if known else f"{type(error).__name__}: {error}"

    def close(self) -> None:
        self.rows.close()
        self.index.close()

    def cards(self, hits: list[Any]) -> list[dict[str, Any]]:
        """The cards of hits, each with the positions that matched and the value sorted by."""
        images = [hit.image for hit in hits]
        verdicts = self.reviews.of_images(images)
        return [
            {
                **card(row, verdicts.get(hit.image, {})),
                "hits": list(hit.positions),
                "value": hit.value,
            }
            for hit, row in zip(hits, self.rows.read(images), strict=True)
        ]


def make_app(config: ViewConfig) -> Starlette:
    """The ASGI application. Raises DataError if there is no dataset at `config.output`."""
    viewer = Viewer(config)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        filling = threading.Thread(target=viewer.fill, name="index", daemon=True)
        filling.start()
        yield
        viewer.close()

    def route(path: str, handler: Callable[[Viewer, Request], Response]) -> Route:
        @wraps(handler)
        def endpoint(request: Request) -> Response:
            return _answered(lambda: handler(viewer, request))

        return Route(path, endpoint)

    async def post_verdicts(request: Request) -> Response:
        body = await _body(request)
        return await run_in_threadpool(_answered, lambda: _store(viewer, body))

    def post_refresh(_: Request) -> Response:
        viewer.fill()
        return _state(viewer, _)

    return Starlette(
        routes=[
            Route("/", lambda _: FileResponse(STATIC / "index.html")),
            route("/api/state", _state),
            route("/api/cards", _cards),
            route("/api/card", _one_card),
            route("/api/audit", _audit),
            route("/api/phrases", _phrases),
            route("/api/histogram", _histogram),
            route("/api/attention", _attention),
            route("/picture/{image:int}", _picture),
            Route("/api/verdicts", post_verdicts, methods=["POST"]),
            Route("/api/refresh", post_refresh, methods=["POST"]),
            Mount("/static", StaticFiles(directory=STATIC)),
        ],
        middleware=[Middleware(Guard, config=config), Middleware(GZipMiddleware, minimum_size=4096)],
        lifespan=lifespan,
    )


def serve(config: ViewConfig, announce: Callable[[str], None]) -> None:
    """Serve until interrupted; `announce` gets the URL once the port is open.

    Raises ConfigError if the address cannot be listened on, DataError as `make_app` does.
    """
    import uvicorn

    app = make_app(config)
    family = socket.AF_INET6 if ":" in config.host else socket.AF_INET
    listener = socket.socket(family)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((config.host, config.port))
    except OSError as error:
        raise ConfigError(
            f"cannot listen on {config.host} port {config.port} ({error.strerror}): "
            "choose another --port (0 takes a free one) or --host"
        ) from error
    listener.listen()  # so that whoever reads the URL is answered once the server runs
    name = f"[{config.host}]" if ":" in config.host else config.host
    secret = f"?token={config.token}" if config.token else ""
    announce(f"http://{name}:{listener.getsockname()[1]}/{secret}")
    settings = uvicorn.Config(app, log_level="warning", server_header=False, lifespan="on")
    uvicorn.Server(settings).run(sockets=[listener])


class _JSON(JSONResponse):
    """JSON in which the numbers that JSON does not have, of rows that no writer of ours made, are null."""

    def render(self, content: Any) -> bytes:
        try:
            return super().render(content)
        except ValueError:
            return super().render(json.loads(json.dumps(content), parse_constant=lambda _: None))


def _answered(work: Callable[[], Response]) -> Response:
    """The response of `work`, or its error as JSON {"error": sentence}."""
    try:
        return work()
    except (ConfigError, DataError) as error:
        return _JSON({"error": str(error)}, 400)
    except (SSPSAMError, OSError) as error:
        return _JSON({"error": str(error) or type(error).__name__}, 422)


def _state(viewer: Viewer, _: Request) -> Response:
    progress = asdict(viewer.index.progress())
    if viewer.problem:
        progress["complete"] = True
        progress["problems"] = [(viewer.dataset.url, viewer.problem), *progress["problems"]]
    query = viewer.index.query
    statuses = dict(query("select status, count(*) from images group by 1"))
    shards = query(f"select distinct shard from images order by 1 limit {_SHARDS_LISTED}")
    masks = query("select count(*), count(*) filter (has_target) from masks")[0]
    return _JSON(
        {
            "dataset": viewer.dataset.url,
            "run": viewer.run,
            "colours": ["#" + bytes(colour).hex() for colour in PALETTE],
            "caveat": viewer.caveat,
            "progress": progress,
            "statuses": statuses,
            "masks": {"all": masks[0], "with_target": masks[1]},
            "verdicts": viewer.reviews.counts(),
            "shards": [shard for (shard,) in shards],
            "measures": [*viewer.signals, "area", "area_fraction"],
            "verdict_names": list(VERDICTS),
            "attention": viewer.attention.available,
            "audit": viewer.config.audit,
        }
    )


def _cards(viewer: Viewer, request: Request) -> Response:
    query = Query.parse(request.query_params)
    cards = viewer.cards(find_hits(viewer.index, query))
    total = count_hits(viewer.index, query)
    return _JSON({"total": total, "offset": query.offset, "cards": cards})


def _one_card(viewer: Viewer, request: Request) -> Response:
    shard, key = request.query_params.get("shard", ""), request.query_params.get("key", "")
    found = viewer.index.query(
        'select id from images where shard = ? and "key" = ? order by id limit 1', [shard, key]
    )
    if not found:
        raise DataError(f"no image {key!r} in shard {shard!r}")
    image = int(found[0][0])
    verdicts = viewer.reviews.of_images([image]).get(image, {})
    row = viewer.rows.read([image])[0]
    return _JSON({**card(row, verdicts), "hits": [], "value": None})


def _audit(viewer: Viewer, _: Request) -> Response:
    """The queue of the audit in its order, each phrase with this reviewer's verdict or null."""
    votes = votes_of(read_every_review(viewer.dataset))
    reviewer = viewer.config.reviewer or ""
    queue = [
        {
            **{name: row[name] for name in ("shard", "key", "phrase", "position")},
            "verdict": votes.get((row["shard"], row["key"], row["phrase"]), {}).get(reviewer),
        }
        for audit in read_audits(viewer.dataset)
        if audit.name == viewer.config.audit
        for row in audit.rows.to_pylist()
    ]
    return _JSON(queue)


def _phrases(viewer: Viewer, request: Request) -> Response:
    """Phrases that begin with, or else hold, the text; the most frequent first."""
    text = request.query_params.get("text", "")[:200]
    rows = viewer.index.query(
        f"select phrase, count(*) as n from masks join (select phrase_id, phrase, "
        f"starts_with(folded, {fold('?')}) as first from phrases "
        f"where contains(folded, {fold('?')})) using (phrase_id) "
        "group by phrase, first order by first desc, n desc, phrase limit 12",
        [text, text],
    )
    return _JSON([{"phrase": phrase, "count": count} for phrase, count in rows])


def _histogram(viewer: Viewer, request: Request) -> Response:
    parameters = dict(request.query_params)
    measure = parameters.pop("measure", "score")
    return _JSON(histogram(viewer.index, Query.parse(parameters), measure))


def _attention(viewer: Viewer, request: Request) -> Response:
    try:
        image = int(request.query_params.get("image", ""))
    except ValueError:
        raise DataError("image must be an id") from None
    phrase = request.query_params.get("phrase", "")
    return _JSON(viewer.attention.maps(image, phrase))


def _picture(viewer: Viewer, request: Request) -> Response:
    side = request.query_params.get("side", "640")
    if not side.isdecimal() or len(side) > 5:
        raise DataError(f"side={side!r} is not a number of pixels")
    jpeg = viewer.pictures.get(request.path_params["image"], int(side))
    return Response(jpeg, media_type="image/jpeg", headers={"Cache-Control": "private, max-age=600"})


async def _body(request: Request) -> bytes:
    body = b""
    async for part in request.stream():
        body += part
        if len(body) > MAX_BODY:
            break
    return body


def _store(viewer: Viewer, body: bytes) -> Response:
    if len(body) > MAX_BODY:
        raise DataError(f"the request has more than {MAX_BODY} bytes")
    try:
        given = json.loads(body)["verdicts"]
        verdicts = [replace(Verdict.parse(one), reviewer=viewer.config.reviewer) for one in given]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError('send {"verdicts": [{"shard", "key", "phrase", "verdict"}]}') from error
    path = viewer.reviews.write(verdicts)
    return _JSON({"stored": len(verdicts), "file": path, "verdicts": viewer.reviews.counts()})
