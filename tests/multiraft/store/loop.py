"""A disk of our own to break: ext4 in a file, mounted through a loop device.

That takes root, e2fsprogs and loop devices. Where one is missing the tests are skipped and say so;
under `RAKIT_SKIP_NOTHING`, which `.ci/run` sets, they fail instead.

``shut_down`` makes every later write and sync fail with EIO, and throws away what was not synced:
for the process that is a dying disk, for the next start it was a power cut. The journal is not
committed by its timer (``commit=300``), so nothing is saved by accident.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import subprocess
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest

_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN
_WITHOUT_FLUSHING_THE_JOURNAL = 2


def require_disks() -> None:
    """Skips the test where no disk can be made, or fails it where nothing may be skipped."""
    if (reason := _why_not()) is None:
        return
    if os.environ.get("RAKIT_SKIP_NOTHING"):
        pytest.fail(f"no disk can be made here: {reason}")
    pytest.skip(f"no disk can be made here: {reason}")


def _why_not() -> str | None:
    if os.geteuid() != 0:
        return "it takes root"
    if missing := [name for name in ("mkfs.ext4", "losetup", "mount") if not shutil.which(name)]:
        return f"{missing[0]} is missing (apt-get install -y e2fsprogs mount)"
    free = subprocess.run(["losetup", "--find"], capture_output=True, text=True, check=False)
    return None if free.returncode == 0 else f"no loop device: {free.stderr.strip()}"


def _run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.fail(f"{' '.join(argv)}: {done.stderr}")
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
