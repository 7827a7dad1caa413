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
    # Replicas that each take most of a node: one on either, if both start in time.
    given |= {"replicas": "1:2", "cpus_per_replica": "1.2", "stall_timeout": "45"}
    config = AnnotateConfig.from_options(given)
    factory = LoadFaulty(Path(model), Path(notes), seconds_per_call=0.5)
    # Ray goes on by itself, or stands still and --stall-timeout ends the run; the same call resumes.
    for _ in range(4):
        summary = annotate(config, phrase_source=two_phrases, segmenter_factory=factory)
        summary.print()
        if summary.exit_code == 0:
            break
    ray.shutdown()
    cluster.shutdown()
    return summary.exit_code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
