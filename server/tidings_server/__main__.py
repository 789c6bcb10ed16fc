"""`python -m tidings_server` is `tidings-server`."""

from __future__ import annotations

from tidings_server.cli import main

if __name__ == "__main__":
    main()
