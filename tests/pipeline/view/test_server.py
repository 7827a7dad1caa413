"""The server as clients see it: who may ask, what is answered, S3, attention maps."""

from __future__ import annotations

import http.client
import io
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import fsspec
import pytest
from PIL import Image

from pipeline.dataset.annotation_dataset import read_reviews
from pipeline.dataset.opening import open_dataset
from pipeline.report import ReportConfig, make_report
from pipeline.stats import agree
from pipeline.view import ViewConfig, make_app
from sspsam.errors import ConfigError, DataError
from tests.pipeline.annotation_fixture import MadeDataset, make_dataset
from tests.pipeline.view.conftest import running
from tests.s3_server import s3_server


class Client:
    """Requests as any program can send them, with headers of its choice."""

    def __init__(self, url: str) -> None:
        self.netloc = urlsplit(url).netloc

    def ask(
        self, path: str, body: Any = None, method: str | None = None, **headers: str
    ) -> tuple[int, Any, dict[str, str]]:
        """(status, body, headers); JSON is decoded. Header names have _ for -."""
        connection = http.client.HTTPConnection(self.netloc, timeout=60)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        data = json.dumps(body) if body is not None and not isinstance(body, str | bytes) else body
        connection.request(method or ("GET" if body is None else "POST"), path, data, named)
        response = connection.getresponse()
        content = response.read()
        found = {name.lower(): value for name, value in response.getheaders()}
        connection.close()
        if found.get("content-type", "").startswith("application/json"):
            return response.status, json.loads(content), found
        return response.status, content, found

    def ready(self, **headers: str) -> dict[str, Any]:
        """The state, once every file is read."""
        for _ in range(600):
            state: dict[str, Any] = self.ask("/api/state", **headers)[1]
            if state["progress"]["complete"]:
                return state
            time.sleep(0.05)
        raise AssertionError(f"never complete: {state}")

    @property
    def origin(self) -> str:
        return f"http://{self.netloc}"


@pytest.fixture(scope="module")
def client(made: MadeDataset, micro_model: Path) -> Iterator[Client]:
    with running(made.output, model=str(micro_model), device="cpu") as url:
        client = Client(url)
        client.ready()
        yield client


def test_only_this_machine_and_this_page_are_answered(client: Client, made: MadeDataset) -> None:
    status, page, headers = client.ask("/")
    assert status == 200
    assert b"<script" in page
    assert b"onclick" not in page
    assert "default-src 'none'" in headers["content-security-policy"]
    assert "unsafe" not in headers["content-security-policy"]
    for host in ("evil.example", "evil.example:80", "127.0.0.1.evil.example", "10.0.0.1", "[::", ""):
        status, answer, headers = client.ask("/api/state", Host=host)
        assert (status, "not this server" in answer["error"]) == (421, True), host
        assert "content-security-policy" in headers
    for host in ("localhost", "127.0.0.1:9", "[::1]:8080"):
        assert client.ask("/api/state", Host=host)[0] == 200

    verdict = {"verdicts": [{"shard": "shard-0000", "key": "0000-00001", "phrase": None, "verdict": "flag"}]}
    for origin in ({}, {"Origin": "null"}, {"Origin": "http://evil.example"}, {"Origin": "http://localhost"}):
        assert client.ask("/api/verdicts", verdict, **origin)[0] == 403
        assert client.ask("/api/refresh", {}, **origin)[0] == 403
    assert not (made.output / "reviews").exists()
    for path in ("/static/../server.py", "/static/%2e%2e/server.py", "/static//etc/passwd", "/nothing"):
        assert client.ask(path)[0] == 404, path
    assert client.ask("/api/verdicts")[0] == 405


def test_answers_and_errors(client: Client, made: MadeDataset) -> None:
    state = client.ready()
    assert state["statuses"] == {"ok": 20, "error": 2, "no_phrase": 2}
    status, found, _ = client.ask("/api/cards?limit=200")
    assert (status, found["total"]) == (200, 24)
    for card in found["cards"]:
        row = made.rows[card["key"]]
        assert (card["caption"], card["status"], card["width"]) == (
            row["caption"],
            row["status"],
            row["width"],
        )
        for one, annotation in zip(card["annotations"], row["annotations"], strict=True):
            rle = annotation["segmentation"]
            assert (one["phrase"], one["counts"], one["size"]) == (
                annotation["phrase"],
                rle["counts"],
                rle["size"],
            )
        status, picture, headers = client.ask(f"/picture/{card['id']}?side=320")
        if row["status"] == "error":
            assert (status, "image" in picture["error"]) == (422, True), picture
        else:
            assert headers["content-type"] == "image/jpeg"
            assert Image.open(io.BytesIO(picture)).size == (row["width"], row["height"])
    for path, says in (
        ("/api/cards?sort=size", "sort='size'"),
        ("/api/card?shard=a&key=b", "no image 'b'"),
        ("/picture/99999", "no image has the id"),
        ("/picture/1?side=big", "side='big'"),
        ("/api/histogram?measure=phrase", "measure='phrase'"),
        ("/api/attention?image=x", "image must be an id"),
    ):
        status, answer, _ = client.ask(path)
        assert (status, says in answer["error"]) == (400, True), answer
    frequent = client.ask("/api/phrases?text=RIN")[1]
    assert all("rin" in one["phrase"] for one in frequent)
    assert frequent

    good = {"shard": "shard-0000", "key": "0000-00001", "verdict": "reject"}
    for body, says in (
        ("{", "send"),
        ({"verdicts": [{**good, "verdict": "maybe"}]}, "accept, reject, flag"),
        ({"verdicts": [{**good, "key": 3}]}, "verdict.key must be a string"),
        ({"verdicts": [{**good, "note": "n" * 3000}]}, "2000 characters"),
        ({"verdicts": []}, "send 1 to"),
        ({"verdicts": [good, {**good, "key": "missing"}]}, "no image 'missing'"),
        (b"[" * 1_200_000, "bytes"),
    ):
        status, answer, _ = client.ask("/api/verdicts", body, Origin=client.origin)
        assert (status, says in answer["error"]) == (400, True), answer
    assert not (made.output / "reviews").exists()


def test_what_agree_wrote_can_be_filtered_and_sorted_by(
    client: Client, made: MadeDataset, tmp_path: Path
) -> None:
    assert "agreement" not in client.ready()["measures"]
    agree(str(made.output), str(made.truth), str(tmp_path / "agreed"))
    with running(tmp_path / "agreed") as url:
        viewer = Client(url)
        assert "agreement" in viewer.ready()["measures"]
        assert sum(viewer.ask("/api/histogram?measure=agreement")[1]["counts"]) > 0
        asked = "/api/cards?unit=masks&limit=200&sort=agreement&direction=desc&min_agreement=0.5"
        found = viewer.ask(asked)[1]
        values = [card["value"] for card in found["cards"]]
        assert values == sorted(values, reverse=True)
        for card in found["cards"]:
            (hit,) = card["hits"]
            assert card["annotations"][hit]["agreement"] == card["value"] >= 0.5
        everything = viewer.ask("/api/cards?limit=200")[1]["cards"]
        masks = [one for card in everything for one in card["annotations"] if one["has_target"]]
        assert 0 < len(values) == sum((one["agreement"] or 0) >= 0.5 for one in masks) < len(masks)


def test_attention_maps(client: Client, made: MadeDataset) -> None:
    card = client.ask("/api/card?shard=shard-0000&key=0000-00001")[1]
    query = urlencode({"image": card["id"], "phrase": card["annotations"][0]["phrase"]})
    status, found, _ = client.ask(f"/api/attention?{query}")
    assert status == 200
    assert [one["name"] for one in found["maps"]] == ["similarity", "gate"]
    for one in found["maps"]:
        side = len(one["values"])
        assert all(len(line) == side and min(line) >= 0 and max(line) <= 1 for line in one["values"])
    left, top, width, height = found["crop"]
    assert width / height == pytest.approx(card["width"] / card["height"], rel=0.05)
    assert max(left, top) > 0 or width == height
    said = "".join(word["token"] for word in found["words"])
    assert said.startswith(card["annotations"][0]["phrase"].replace(" ", ""))
    assert sum(word["weight"] for word in found["words"]) == pytest.approx(1, abs=1e-3)
    assert client.ask(f"/api/attention?image={card['id']}&phrase=%20")[0] == 422


def test_token(made: MadeDataset) -> None:
    assert ViewConfig(output="x", host="0.0.0.0").token
    assert ViewConfig(output="x", host="127.0.0.1").token is None
    with pytest.raises(ConfigError, match="--token"):
        ViewConfig(output="x", token="short")
    token = "correct horse battery"
    with running(made.output, host="0.0.0.0", token=token, allowed_hosts=("Masks.example",)) as url:
        client = Client(url)
        for path in (
            "/api/state",
            "/api/cards",
            "/picture/1",
            "/api/state?token=wrong",
            f"/api/state?token={token[:-1]}",
        ):
            assert client.ask(quote(path, safe="/?="))[0] == 401, path
        assert client.ask("/api/refresh", {}, Origin=client.origin)[0] == 401
        assert client.ask("/", Cookie="sspsam_view_1=x")[0] == 401
        assert client.ask("/static/app.css")[0] == 200
        status, _, headers = client.ask(f"/?token={quote(token)}&sort=score")
        assert (status, headers["location"]) == (303, "/?sort=score")
        cookie = headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "samesite=strict" in cookie.lower()
        assert token not in cookie
        assert client.ask("/api/state", Cookie=cookie.split(";")[0])[0] == 200
        assert client.ask("/api/state", Authorization=f"Bearer {token}")[0] == 200
        assert client.ask("/api/state", Authorization="Bearer wrong")[0] == 401
        bearer = {"Authorization": f"Bearer {token}"}
        assert client.ask("/api/state", Host="masks.example", **bearer)[0] == 200
        assert client.ask("/api/state", Host="rebound.example", **bearer)[0] == 421


def test_what_cannot_be_served_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such folder"):
        make_app(ViewConfig(output=str(tmp_path / "missing")))
    made = make_dataset(tmp_path, images=2, shards=1)
    (made.output / "reviews").mkdir()
    (made.output / "reviews/a.parquet").write_bytes(b"")
    with pytest.raises(DataError, match=r"a\.parquet"):
        make_app(ViewConfig(output=str(made.output)))


def test_dataset_and_images_on_s3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with s3_server(tmp_path / "s3") as s3:
        made = make_dataset(tmp_path, images=8, shards=1, image_url=f"s3://{s3.bucket}/input")
        fs = fsspec.filesystem("s3", **s3.options)
        fs.put(str(made.output), f"{s3.bucket}/output", recursive=True)
        fs.put(str(made.input), f"{s3.bucket}/input", recursive=True)
        fs.put(str(made.truth), f"{s3.bucket}/truth", recursive=True)
        output = f"s3://{s3.bucket}/output"
        with running(output, storage_options=s3.options) as url:
            client = Client(url)
            assert client.ready()["statuses"] == {"ok": 6, "error": 1, "no_phrase": 1}
            card = client.ask("/api/cards?sort=score")[1]["cards"][0]
            assert client.ask(f"/picture/{card['id']}")[2]["content-type"] == "image/jpeg"
            verdict = {"shard": card["shard"], "key": card["key"], "verdict": "reject"}
            status, answer, _ = client.ask("/api/verdicts", {"verdicts": [verdict]}, Origin=client.origin)
            assert status == 200, answer
            assert client.ask("/api/cards?verdict=reject")[1]["total"] == 1
        stored = read_reviews(open_dataset(output, storage_options=s3.options)).to_pylist()
        assert [(one["key"], one["verdict"]) for one in stored] == [(card["key"], "reject")]

        monkeypatch.chdir(tmp_path)
        config = ReportConfig(output, truth=f"s3://{s3.bucket}/truth", tiles=2, storage_options=s3.options)
        summary = make_report(config)
        assert summary.page.resolve() == tmp_path / "report.html"
        assert summary.agreement is not None
        assert summary.agreement.not_in_truth == 0
        assert "was the input moved" not in summary.page.read_text()
