"""A program for tests: annotate on a cluster whose only node with room for a replica is removed.

python -m tests.pipeline.annotate.lose_a_node INPUT OUTPUT MODEL NOTES (at-once|late)

Another node comes at once, or only when the job says that it waits for one. The job is called once.
"""

from __future__ import annotations

import contextlib
import io
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path


class Listener(io.TextIOBase):
    """Standard error, and whether the job has said there that it waits."""

    def __init__(self) -> None:
        self.waits = threading.Event()

    def write(self, text: str) -> int:
        if "waiting for the cluster" in text:
            self.waits.set()
        return sys.__stderr__.write(text) if sys.__stderr__ else 0


def main(source: str, output: str, model: str, notes: str, replaced: str) -> int:
    import ray
    from ray.cluster_utils import Cluster

    from pipeline.annotate import watch
    from pipeline.annotate.annotate_config import AnnotateConfig
    from pipeline.annotate.job import annotate
    from tests.pipeline.annotate.faults import LoadFaulty
    from tests.pipeline.annotate.inputs import two_phrases

    watch._LOST_NODE_SECONDS = 5.0  # it is still silent for twice what a replica took, before it is given up
    # The replica does not fit on the head, as one with a GPU does not fit on a head without.
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    node = cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address)
    given = {"input": source, "output": output, "model": model, "chunk_size": 8}
    config = AnnotateConfig.from_options(given | {"cpus_per_replica": 1.2, "replicas": "1"})
    factory = LoadFaulty(Path(model), Path(notes), seconds_per_call=0.5)
    listener = Listener()
    # Nodes come and go in the main thread: Ray's own cluster starts none in another.
    with contextlib.redirect_stderr(listener), ThreadPoolExecutor(1) as pool:
        job = pool.submit(annotate, config, phrase_source=two_phrases, segmenter_factory=factory)
        while not job.done() and len(list(Path(output).glob("_chunks/*/*.parquet"))) < 3:
            time.sleep(0.05)
        cluster.remove_node(node, allow_graceful=False)
        print("the node is gone", flush=True)
        while replaced == "late" and not job.done() and not listener.waits.wait(0.1):
            pass
        cluster.add_node(num_cpus=2)
        print("another node is there", flush=True)
        summary = job.result()
    summary.print()
    ray.shutdown()
    cluster.shutdown()
    return summary.exit_code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
