"""One Ray, one S3 server and one proxy for all faults of the campaign."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.jobs.campaign.campaign import Campaign
from tests.jobs.campaign.proxy import proxy
from tests.s3_server import s3_server
from tests.seed import SEED


@pytest.fixture(scope="package")
def campaign(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Campaign]:
    import ray

    print(f"SEED={SEED}")
    folder = tmp_path_factory.mktemp("campaign")
    with (
        pytest.MonkeyPatch.context() as patch,
        s3_server(folder / "s3", "bucket") as s3,
        proxy(s3.endpoint) as store,
    ):
        settings = {"AWS_ENDPOINT_URL": store.endpoint, "COLUMNS": "1000"}  # a message is one line
        for name, value in (s3.environment | settings).items():
            patch.setenv(name, value)
        options = {"include_dashboard": False, "log_to_driver": False, "object_store_memory": 2**28}
        # Of CPUs Ray only counts: two drivers have a replica and readers at once.
        context = ray.init(num_cpus=4, **options)
        try:
            patch.setenv("RAY_ADDRESS", context.address_info["address"])
            found = Campaign(s3, store, folder, "tiny", context.address_info["address"])
            found.begin()
            yield found
        finally:
            ray.shutdown()
