"""A hold on Ray Data's executor, which a Dataset does not give: to pace it, and to end a chain.

Imports Ray Data, so it is imported late. Ray Data has no public way to end an execution from another
thread; of what it has, an execution callback is the one that reaches the executor.
"""

from __future__ import annotations

import threading
import time
from typing import Any, ClassVar

from ray.data._internal.execution.execution_callback import ExecutionCallback

#: Between two steps of the executor's loop. Each costs milliseconds however much has happened, and a row is
#: seconds of work.
_STEP_SECONDS = 0.1


class HoldExecutor(ExecutionCallback):
    """Remembers each executor of this process by the thread that reads its output, and paces it."""

    executors: ClassVar[dict[int, Any]] = {}

    def before_execution_starts(self, executor: Any) -> None:
        self.executors[threading.get_ident()] = executor

    def on_execution_step(self, executor: Any) -> None:
        time.sleep(_STEP_SECONDS)


def end_execution(reader: threading.Thread, seconds: float) -> None:
    """End the chain whose output `reader` reads: its tasks are cancelled, its actors killed.

    Waits so many seconds at most, because Ray waits for what it cancels without a limit.
    """
    executor = HoldExecutor.executors.pop(reader.ident or 0, None)
    if executor is None:
        return
    ending = threading.Thread(target=executor.shutdown, kwargs={"force": True}, name="end", daemon=True)
    ending.start()
    ending.join(seconds)
    reader.join(seconds)
