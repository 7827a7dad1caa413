"""A program for tests: annotate on two nodes, one of which is lost while it works and replaced.

python -m tests.pipeline.lose_a_node INPUT OUTPUT MODEL NOTES
"""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path


def main(source: str, output: str, model: str, notes: str) -> int:
    import ray
    from ray.cluster_utils import Cluster

    from pipeline.cluster import may_grow
    from pipeline.config import AnnotateConfig
    from pipeline.job import annotate
    from tests.pipeline.faults import LoadFaulty
    from tests.pipeline.inputs import two_phrases

    # The replica fits on the other node only, as a GPU replica does not fit on a head without GPUs.
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
    other = cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address)

    def lose() -> None:
        while len(list(Path(output).glob("annotations/*/*.parquet"))) < 3:
            time.sleep(0.05)
        cluster.remove_node(other, allow_graceful=False)
        print("the node is gone", flush=True)
        cluster.add_node(num_cpus=2)  # as an autoscaler does

    threading.Thread(target=lose, daemon=True).start()
    given = {"input": source, "output": output, "model": model, "chunk_size": 8}
    config = AnnotateConfig.from_options(given | {"replicas": "1", "cpus_per_replica": 1.5})
    factory = LoadFaulty(Path(model), Path(notes), seconds_per_call=0.5)
    summary = annotate(config, phrase_source=two_phrases, segmenter_factory=factory)
    summary.print()
    assert may_grow()
    # In this order: a driver whose node goes first exits with 1, whatever it returns.
    ray.shutdown()
    cluster.shutdown()
    return summary.exit_code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
