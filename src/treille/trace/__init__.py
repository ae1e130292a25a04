"""Traces: every event of a run, drawn in the terminal or as one HTML file."""

from treille.trace.events import Event, TracedNode
from treille.trace.recorder import Recorder
from treille.trace.trace import Trace

__all__ = ["Event", "Recorder", "Trace", "TracedNode"]
