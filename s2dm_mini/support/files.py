"""Files that are whole or not there, and files that one process at a time writes.

Whatever this package writes goes through `write_whole`. Killed at any moment, or out of room, it leaves the old content or the new one,
and never half of it.
"""
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

MAX_HEADER = 16 << 20  # its names and shapes take less than 1 MiB


class WriteError(OSError):
    """A file that could not be written."""

    def __str__(self) -> str:
        return (f"{self.filename} cannot be written ({self.strerror}). What was there before is untouched; make room or permit it, "
                f"or name another place.")


class TakenError(OSError):
    """A file that another process is writing."""


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that nobody ever sees half of it: into a neighbour first, which then takes the name.

    Folders on the way are made. Raises WriteError.
    """
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(part, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
    except OSError as error:
        raise WriteError(error.errno, error.strerror or str(error), str(path)) from error


@contextmanager
def sole_writer(*paths: Path, wait: bool = False) -> Iterator[None]:
    """Be the only process that writes these files, as far as all ask for it, and remove the parts of them that killed ones left.

    The lock is a file beside the first of them. The system frees it when its holder ends, however that ends: nothing is left to clear
    away after `kill -9`. wait: for another process that holds it. Raises TakenError if that is not wanted, and WriteError.
    """
    from filelock import FileLock, Timeout  # here, because whoever only samples does not need it

    first = paths[0]
    lock = FileLock(first.with_name(f".{first.name}.lock"), thread_local=False)  # a generator may be closed by another thread
    try:
        first.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=1 if wait else 0)
        except Timeout:
            if not wait:
                raise TakenError(f"another process is writing {first}: wait until it has finished, or name another place.") from None
            print(f"Waiting for another process that is writing {first}.", file=sys.stderr, flush=True)
            lock.acquire()
        for path in paths:
            for part in [p for p in path.parent.glob("*.part") if p.name.startswith(f"{path.name}.")]:
                part.unlink(missing_ok=True)
    except TakenError:
        raise
    except OSError as error:
        raise WriteError(error.errno, error.strerror or str(error), str(first)) from error
    try:
        yield
    finally:
        lock.release()
