"""`health.py COMPONENT` ends with 0 where the API server says that Airflow's component is healthy; so does
`health.py HOST:PORT` where somebody listens there. Of the standard library alone, so that it costs next to nothing.
"""

import json
import os
import socket
import sys
import urllib.request

SECONDS = 5
API = "AIRFLOW__CORE__EXECUTION_API_SERVER_URL"


def ask_airflow(component: str) -> str | None:
    """`healthy` or `unhealthy` of metadatabase, scheduler, triggerer or dag_processor; None before its first beat.

    Raises OSError where the API server does not answer.
    """
    address = os.environ[API].removesuffix("/execution/")
    with urllib.request.urlopen(f"{address}/api/v2/monitor/health", timeout=SECONDS) as answer:
        status: str | None = (json.load(answer)[component] or {}).get("status")
    return status


def main() -> int:
    host, _, port = sys.argv[1].rpartition(":")
    try:
        if port.isdigit():
            socket.create_connection((host, int(port)), SECONDS).close()
            return 0
        return int(ask_airflow(sys.argv[1]) != "healthy")
    except (OSError, ValueError) as error:
        print(f"{sys.argv[1]}: {type(error).__name__}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
