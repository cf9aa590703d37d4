"""Models for runtimes without PyTorch."""

from .export_onnx import check_onnx, export_onnx
from .text_side import TextSide
from .video_side import VideoSide

__all__ = ['TextSide', 'VideoSide', 'check_onnx', 'export_onnx']
