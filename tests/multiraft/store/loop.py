"""A disk of our own to break: ext4 in a file, mounted through a loop device. Needs root.

``shut_down`` makes every later write and sync fail with EIO, and throws away what was not synced:
for the process that is a dying disk, for the next start it was a power cut. The journal is not
committed by its timer (``commit=300``), so nothing is saved by accident.
"""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN
_WITHOUT_FLUSHING_THE_JOURNAL = 2


def _run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.fail(f"{' '.join(argv)} (needs root, e2fsprogs, loop devices): {done.stderr}")
    return done.stdout.strip()


class LoopDisk:
    """Mounted inside the ``with`` block."""

    def __init__(self, base: Path, mebibytes: int) -> None:
        self._image = base / "disk.img"
        self.mount_point = base / "disk"
        self.mount_point.mkdir()
        with self._image.open("wb") as image:
            image.truncate(mebibytes << 20)
        _run("mkfs.ext4", "-q", "-F", str(self._image))
        self._device = ""

    def __enter__(self) -> Self:
        self._mount()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._unmount()

    def shut_down(self) -> None:
        """From now on every write fails; what was not synced is gone."""
        descriptor = os.open(self.mount_point, os.O_RDONLY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _WITHOUT_FLUSHING_THE_JOURNAL))
        finally:
            os.close(descriptor)

    def power_cycle(self) -> None:
        """As after a reboot."""
        self._unmount()
        self._mount()

    def _mount(self) -> None:
        self._device = _run("losetup", "--find", "--show", str(self._image))
        _run("mount", "-o", "commit=300", self._device, str(self.mount_point))

    def _unmount(self) -> None:
        if self._device:
            # Lazily: a failed test may still hold files open, and the device must go.
            _run("umount", "-l", str(self.mount_point))
            _run("losetup", "-d", self._device)
            self._device = ""
