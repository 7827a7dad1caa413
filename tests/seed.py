"""The seed of a chaos session: `SEED=...` plays one again, else it is random; whoever uses it prints it."""

from __future__ import annotations

import os
import random

SEED = int(os.environ.get("SEED") or random.randrange(1, 10**6))
