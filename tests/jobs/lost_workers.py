"""A program: work items whose workers, or executors, are killed at the first attempt. It prints what was made, as JSON.

python -m tests.jobs.lost_workers LAKE worker|executor
"""

import json
import os
import sys
from pathlib import Path

from jobs.lake import Lake
from jobs.spark import spark_session
from jobs.work_items import Made, WorkItem, run_items, write_item


def main() -> None:
    folder, victim = Path(sys.argv[1]), sys.argv[2]
    items = [WorkItem((), str(folder / f"part-{number}")) for number in range(4)]

    def make(item: WorkItem) -> Made:
        import signal
        import time

        begun = Path(f"{item.target}.begun")

        def write(pieces: object, file: Path) -> int:
            file.write_text("half")
            if item.target.endswith(("1", "2")) and not begun.exists():
                begun.touch()
                # A worker is forked by a daemon, which the executor has started.
                daemon = Path(f"/proc/{os.getppid()}/stat").read_text().rsplit(")", 1)[1].split()[1]
                os.kill(os.getpid() if victim == "worker" else int(daemon), signal.SIGKILL)
                time.sleep(60)
            file.write_text("whole")
            return 7

        return write_item(item, write)

    lake = Lake(folder)
    lake.prepare()
    with spark_session(lake, "lost") as spark:
        made = run_items(spark.sparkContext, items, make)
    print(json.dumps([[part.file, part.rows] for part in made]))


if __name__ == "__main__":
    main()
