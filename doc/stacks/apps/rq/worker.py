"""Workers of one's own that import the jobs before they fork, as RQ advises for speed: ``python worker.py QUEUE``."""

import sys

import jobs
from rq import Worker
from rq.worker_pool import WorkerPool


class FreshPool(Worker):
    """The hook: RQ runs main_work_horse() in the process that it forks for a job, before the job."""

    def main_work_horse(self, job, queue):
        jobs.engine.dispose(close=False)
        super().main_work_horse(job, queue)


if __name__ == "__main__":
    worker_class = FreshPool if jobs.recipe == "hook" else Worker
    WorkerPool(sys.argv[1:], jobs.redis, num_workers=4, worker_class=worker_class).start()
