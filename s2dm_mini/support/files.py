"""Whole files: each write replaces the file at once, and a lock admits one writer.

A process killed at any moment, or a full disk, leaves the old content or the new one, never a part of it.
"""
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MAX_HEADER = 16 << 20  # bytes; the names and shapes of a checkpoint take less than 1 MiB


class WriteError(OSError):
    """A file that could not be written."""

    def __str__(self) -> str:
        return (f"{self.filename} cannot be written ({self.strerror}). What was there before is untouched; make room or permit it, "
                f"or name another place.")


class TakenError(OSError):
    """A file that another process is writing."""


def reason(error: Exception) -> str:
    """Another library's exception in one line of at most 300 characters."""
    return f"{type(error).__name__}, {' '.join(str(error).split())[:300]}"


@contextmanager
def _write_error(path: Path) -> Iterator[None]:
    """Turn any OSError into a WriteError that names the file."""
    try:
        yield
    except OSError as error:
        raise WriteError(error.errno, error.strerror or str(error), str(path)) from error


def write_whole(path: Path, content: bytes) -> None:
    """Write a temporary neighbour, then rename it to `path`, making folders where needed; a link stays a link. Raises WriteError."""
    path = Path(os.path.realpath(path))
    part = path.with_name(f"{path.name}.{secrets.token_hex(4)}.part")
    with _write_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(part, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)


@contextmanager
def sole_writer(*paths: Path, wait: bool = False) -> Iterator[None]:
    """Hold the lock of these files, and remove the temporary neighbours that killed writers left.

    The lock is a file beside the first path; the system frees it when its holder ends, even by `kill -9`. wait: wait for the holder.
    Raises TakenError where another process holds it and `wait` is False, and WriteError.
    """
    from filelock import FileLock, Timeout  # here, because sampling does not need it

    paths = [Path(os.path.realpath(path)) for path in paths]  # two links to one file share its lock
    first = paths[0]
    lock = FileLock(first.with_name(f".{first.name}.lock"), thread_local=False)  # a generator may be closed by another thread
    try:
        with _write_error(first):
            first.parent.mkdir(parents=True, exist_ok=True)
            with suppress(Timeout):
                lock.acquire(timeout=1 if wait else 0)
            if wait and not lock.is_locked:
                print(f"Waiting for another process that is writing {first}.", file=sys.stderr, flush=True)
                lock.acquire()
        if not lock.is_locked:
            raise TakenError(f"another process is writing {first}: wait until it has finished, or name another place.")
        with _write_error(first):
            for path in paths:
                for part in [p for p in path.parent.glob("*.part") if p.name.startswith(f"{path.name}.")]:
                    part.unlink(missing_ok=True)
        yield
    finally:
        lock.release()
