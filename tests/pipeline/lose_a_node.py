"""A program for tests: annotate on two nodes, one of which is removed while it works.

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

    from pipeline.config import AnnotateConfig
    from pipeline.job import annotate
    from tests.pipeline.faults import LoadFaulty
    from tests.pipeline.inputs import two_phrases

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2})
    other = cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address)

    def lose() -> None:
        while len(list(Path(output).glob("annotations/*/*.parquet"))) < 3:
            time.sleep(0.05)
        cluster.remove_node(other, allow_graceful=False)
        print("the node is gone", flush=True)

    threading.Thread(target=lose, daemon=True).start()
    given = {"input": source, "output": output, "model": model, "chunk_size": 8}
    # Two replicas that each take most of a node: one on either.
    config = AnnotateConfig.from_options(given | {"replicas": "1:2", "cpus_per_replica": 1.2})
    factory = LoadFaulty(Path(model), Path(notes), seconds_per_call=0.5)
    summary = annotate(config, phrase_source=two_phrases, segmenter_factory=factory)
    summary.print()
    print("exit code", summary.exit_code, flush=True)
    ray.shutdown()
    print("ray is down", flush=True)
    cluster.shutdown()
    print("cluster is down", flush=True)
    return summary.exit_code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
