"""A page that shows what a frame holds: one file of HTML, without a script."""

from skmm._frame_report._report import FrameReport, frame_report

__all__ = ["FrameReport", "frame_report"]
