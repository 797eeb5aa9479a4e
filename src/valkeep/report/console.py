"""Where people read: a console whose reader may go away (``… | head``, a closed terminal) without an effect on the job. It says nothing from then on."""

from __future__ import annotations

import contextlib
import os

from rich.console import Console

__all__ = ["PatientConsole"]


class PatientConsole(Console):
    """rich's console ends the process when its reader has gone; a migration has better things to do."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        with contextlib.suppress(OSError, ValueError):  # what is still buffered must not complain at exit
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self.file.fileno())
            os.close(nowhere)
