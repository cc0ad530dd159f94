"""OpenTelemetry's log signal, batched and exported as OTLP over HTTP."""

from __future__ import annotations

from importlib import import_module
from time import time_ns
from typing import Any

from tests.benchmarks.sample import flat_fields

from .subject import Subject

__all__ = ["OpenTelemetryLogs"]


class OpenTelemetryLogs(Subject):
    """One log record per event, its fields as attributes."""

    module = "opentelemetry.exporter.otlp.proto.http"
    imports = f"opentelemetry.sdk._logs.export, {module}._log_exporter"

    def setup(self, port: int) -> None:
        api = import_module("opentelemetry._logs")
        sdk = import_module("opentelemetry.sdk._logs")
        export = import_module("opentelemetry.sdk._logs.export")
        otlp = import_module("opentelemetry.exporter.otlp.proto.http._log_exporter")
        exporter = otlp.OTLPLogExporter(endpoint=f"http://127.0.0.1:{port}/v1/logs")
        self._provider = sdk.LoggerProvider()
        self._provider.add_log_record_processor(
            export.BatchLogRecordProcessor(exporter, max_queue_size=65_000)
        )
        self.capture = self._provider.get_logger("bench").emit
        self._record = api.LogRecord
        self._warn = api.SeverityNumber.WARN

    def build(self) -> Any:
        return self._record(
            timestamp=time_ns(),
            severity_number=self._warn,
            body="penetration_attempt",
            attributes=flat_fields(),
        )

    def flush(self) -> None:
        self._provider.force_flush()

    def close(self) -> None:
        self._provider.shutdown()
