"""Several processes of one training on this machine, started and stopped by torch's elastic agent."""

import logging
import os
import sys
from collections.abc import Sequence

from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.launcher.api import LaunchConfig, elastic_launch

SECONDS_TO_SAVE = 600
"""After a signal the ranks finish their step and save; only a rank that takes longer is killed."""


def run_on_ranks(arguments: Sequence[str], *, num_ranks: int) -> int:
    """Run `fledge` with `arguments` in `num_ranks` processes, as torchrun would; returns the exit code.

    A signal is passed on to every rank. The code is that of the first rank that failed, or 128 and the signal's number.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, cores // num_ranks)))
    config = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=num_ranks,
        run_id="fledge",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,
        shutdown_timeout=SECONDS_TO_SAVE,
    )
    logging.disable(logging.CRITICAL)  # this process is nothing but the agent; what is to be said the ranks say
    try:
        elastic_launch(config, sys.executable)("-m", "fledge", *arguments)
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    except SignalException as error:
        return 128 + int(error.sigval)
    finally:
        logging.disable(logging.NOTSET)
    return 0
