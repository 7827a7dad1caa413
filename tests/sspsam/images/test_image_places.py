"""References of somebody else's dataset lead only to what its user named."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sspsam.errors import DataError
from sspsam.images.image_places import ImagePlaces
from sspsam.images.load_image import load_image
from tests.pipeline.annotate.inputs import picture, write_tar

FOREIGN = [
    "file:///etc/passwd",
    "local:///etc/passwd",
    "/etc/passwd",
    "../secret.jpg",
    "a/../../secret.jpg",
    "http://169.254.169.254/latest/meta-data/iam",
    "http://2130706433/x.jpg",
    "http://localhost:8000/x.jpg",
    "https://example.org.evil.net/in/x.jpg",
    "https://example.org@evil.net/in/x.jpg",
    "https://example.org/in/%2e%2e/x.jpg",
    "https://example.org/other/x.jpg",
    "s3://other-bucket/in/x.jpg",
    "s3://bucket/in2/x.jpg",
    "s3://bucket/in/../x.jpg",
    "simplecache::s3://bucket/in/x.jpg",
    "zip://x.jpg::s3://bucket/in/x.zip",
    "link.jpg",
    "links/secret.jpg",
]


@pytest.fixture
def places(tmp_path: Path) -> ImagePlaces:
    folder = tmp_path / "in"
    folder.mkdir()
    (tmp_path / "secret.jpg").write_bytes(picture(1))
    (folder / "mine.jpg").write_bytes(picture(2))
    (folder / "link.jpg").symlink_to(tmp_path / "secret.jpg")
    (folder / "links").symlink_to(tmp_path)
    recorded = [
        str(folder),
        "s3://bucket/in",
        "https://example.org/in",
        "http://169.254.169.254",
        "http://localhost",
    ]
    return ImagePlaces.of((), str(folder), recorded)


@pytest.mark.parametrize("url", FOREIGN)
def test_what_lies_elsewhere_is_refused_with_the_flag_that_allows_it(places: ImagePlaces, url: str) -> None:
    with pytest.raises(DataError, match=r"not followed.*--image-root"):
        load_image({"url": url}, places=places)
    with pytest.raises(DataError):
        load_image({"url": str(places.base), "member": url}, places=places)


def test_what_lies_in_the_input_is_read(places: ImagePlaces, tmp_path: Path) -> None:
    for ref in ({"url": "mine.jpg"}, {"url": ".", "member": "mine.jpg"}, {"url": f"{tmp_path}/in/mine.jpg"}):
        assert load_image(ref, places=places) == picture(2)
    for url in ("s3://bucket/in/x.tar", "https://example.org/in/x.jpg?a=1", "https://EXAMPLE.org/in/x.jpg"):
        assert places.admit({"url": url})["url"] == url
    allowed = ImagePlaces.of([str(tmp_path / "in"), str(tmp_path)], None, [])
    assert load_image({"url": "link.jpg"}, places=allowed) == picture(1)


def test_parquet_rows_do_not_lead_out_either(places: ImagePlaces, tmp_path: Path) -> None:
    values: list[Any] = [
        {"bytes": None, "path": p} for p in ("mine.jpg", "../secret.jpg", "file:///etc/passwd")
    ]
    pq.write_table(pa.table({"image": values}), tmp_path / "in/a.parquet")
    assert load_image({"url": "a.parquet", "member": "0"}, places=places) == picture(2)
    for row in ("1", "2"):
        with pytest.raises(DataError, match="not followed"):
            load_image({"url": "a.parquet", "member": row}, places=places)
    # In annotation files the path is a key, whatever it looks like.
    pq.write_table(pa.table({"image": values, "image_ref": [None] * 3}), tmp_path / "in/b.parquet")
    for row in ("0", "2"):
        with pytest.raises(DataError, match="holds no image"):
            load_image({"url": f"{tmp_path}/in/b.parquet", "member": row})


class _Redirects(BaseHTTPRequestHandler):
    """Whatever lies below /in/ is elsewhere: at /secret."""

    asked: ClassVar[list[str]] = []

    def log_message(self, *args: object) -> None:
        pass

    def do_GET(self) -> None:
        self.asked.append(self.path)
        elsewhere = self.path.startswith("/in/")
        self.send_response(302 if elsewhere else 200)
        self.send_header("Location", "/secret")
        self.send_header("Content-Length", "0" if elsewhere else "6")
        self.end_headers()
        self.wfile.write(b"" if elsewhere else b"SECRET")

    do_HEAD = do_GET  # noqa: N815


def test_web_redirects_are_not_followed_out_of_the_input() -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Redirects)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    root = f"http://127.0.0.1:{server.server_port}/in/"
    places = ImagePlaces.of([root], None, [])
    tar = {"url": f"{root}a.tar", "member": "a.jpg", "offset": 0, "length": 6}
    for ref in ({"url": f"{root}a.jpg"}, tar, {"url": f"{root}a.parquet", "member": "0"}):
        with pytest.raises(DataError, match=root):
            load_image(ref, places=places)
    assert _Redirects.asked
    assert "/secret" not in _Redirects.asked
    assert load_image(tar) == b"SECRET"  # a reference of one's own leads where it leads
    server.shutdown()
    server.server_close()


def test_roots_that_a_person_gives(tmp_path: Path) -> None:
    write_tar(tmp_path / "new/date=2026/a.tar", [("a.jpg", picture(3))])
    ref = {"url": "a.tar", "member": "a.jpg", "offset": None, "length": None}
    there = str(tmp_path / "new/date=2026")
    for roots, base, url in (
        ((there,), "/old/in", "a.tar"),
        ((there,), "/old/in", "/old/in/a.tar"),
        ((f"/old/in={there}",), "/old/in", "a.tar"),
        ((f"/old/in={there}",), None, "/old/in/a.tar"),
        ((f"s3://old/in={there}",), None, "s3://old/in/a.tar"),
        ((there, "/somewhere/else"), None, "a.tar"),
    ):
        assert load_image({**ref, "url": url}, places=ImagePlaces.of(roots, base, [])) == picture(3)
    with pytest.raises(DataError, match=r"a.tar is relative to INPUT.*--image-root"):
        load_image(ref, places=ImagePlaces.of((), None, []))


def test_a_manifest_is_believed_only_where_it_says_folders(tmp_path: Path) -> None:
    (tmp_path / "x.jpg").write_bytes(picture(4))
    hostile: list[Any] = [
        {"image_root": "/", "inputs": [{"url": "."}, {"url": "/"}, {"url": "https://"}, 7, None]},
        {"image_root": 3, "inputs": {"url": str(tmp_path)}, "runs": [{"options": []}]},
        {"inputs": [{"url": "http://127.0.0.1:9000/"}, {"url": "http://10.0.0.1"}], "runs": "x"},
    ]
    for manifest in hostile:
        places = ImagePlaces.of_dataset("s3://data/set", {"_run.json": json.loads(json.dumps(manifest))}.get)
        for url in (
            f"{tmp_path}/x.jpg",
            "https://example.org/x.jpg",
            "http://127.0.0.1:9000/x.jpg",
            "http://10.0.0.1/x",
        ):
            with pytest.raises(DataError, match="not followed"):
                places.admit({"url": url})
        assert places.admit({"url": "s3://data/set/images/x.jpg"})
