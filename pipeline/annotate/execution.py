"""A hold on Ray Data's executor, which a Dataset does not give: to end a chain that stands still.

Imports Ray Data, so it is imported late. Ray Data has no public way to end an execution from another
thread; of what it has, an execution callback is the one that reaches the executor.
"""

from __future__ import annotations

import threading
from typing import Any, ClassVar

from ray.data._internal.execution.execution_callback import ExecutionCallback


class HoldExecutor(ExecutionCallback):
    """Remembers each executor of this process by the thread that reads its output."""

    executors: ClassVar[dict[int, Any]] = {}

    def before_execution_starts(self, executor: Any) -> None:
        self.executors[threading.get_ident()] = executor


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
