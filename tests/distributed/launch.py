"""Start torchrun as a child process on a free local port, and end it with all its processes."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def start(
    ranks: int, *words: str, restarts: int = 0, nodes: int = 1, port: int | None = None, name: str = "none"
) -> subprocess.Popen[str]:
    """Start torchrun with a script or with `-m sasrec`, one thread per process.

    With several nodes, this call starts one node with `ranks` processes. All nodes need the same port and name.
    """
    port = port or free_port()
    command = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        f"--nnodes={nodes}",
        f"--nproc_per_node={ranks}",
        "--monitor-interval=0.2",
    ]
    command += [
        f"--rdzv-id={name}",
        f"--max-restarts={restarts}",
        "--rdzv-backend=c10d",
        f"--rdzv-endpoint=127.0.0.1:{port}",
        *words,
    ]
    # Sharing is what keeps torchrun from taking a lost machine back; docs/slurm.sbatch does the same.
    own_stores = {"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"} if nodes > 1 else {}
    environment = os.environ | {"OMP_NUM_THREADS": "1"} | own_stores
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], seconds: int = 240) -> tuple[int, str]:
    """The exit status and the output of torchrun. After a time limit, it is killed with all its processes."""
    try:
        said, _ = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        said, _ = process.communicate()
        raise AssertionError(f"hung; it said:\n{said}") from None
    return process.returncode, said
