from derta.report.html import Run, write_report

__all__ = ["Run", "write_report"]
