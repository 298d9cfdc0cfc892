"""``python -m parallel_agent.cli``: the command line."""

from __future__ import annotations

from parallel_agent.cli.start import main

if __name__ == "__main__":
    main()
