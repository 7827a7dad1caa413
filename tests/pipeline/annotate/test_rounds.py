"""What is said of the error that ended a chain."""

from __future__ import annotations

from ray.data._internal.util import _annotate_exception_with_retry_context

from pipeline.annotate.rounds import _cause


def test_advice_of_ray_about_its_own_settings_is_left_out() -> None:
    error = PermissionError("s3://bucket/out: Access Denied")
    advised = _annotate_exception_with_retry_context(
        error,
        description="map",
        attempts=1,
        max_attempts=3,
        total_backoff_s=0.0,
        exception_str="ACCESS_DENIED",
    )
    assert "DataContext" in str(advised)
    assert _cause(advised) == "PermissionError: s3://bucket/out: Access Denied"
