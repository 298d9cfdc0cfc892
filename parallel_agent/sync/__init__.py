"""The sync host: the same trees and the same events in scripts, threads and notebooks.

``run_sync(tree, "hello")`` returns the result; ``with open_sync(tree, "hello") as run`` gives the
stream of events. `Runner` is for more than one run.
"""

from __future__ import annotations

from parallel_agent.sync.run import Run
from parallel_agent.sync.runner import OpenRun, Runner, SyncOptions, open_sync, run_sync

__all__ = ["OpenRun", "Run", "Runner", "SyncOptions", "open_sync", "run_sync"]
