"""`make bench-pods` fails when a first page of pods is slower or larger than it may be."""

from __future__ import annotations

import pytest

from tests.bench.pods import Row, missed

_PAGE = "k8s_get_pods, first page (50)"
_BUDGET = 64 * 1024


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (Row(_PAGE, 299.9, 900, _BUDGET), []),
        (Row(_PAGE, 300, 300, 1), [f"{_PAGE}: median 300.0 ms, allowed less than 300"]),
        (Row(_PAGE, 1, 1, _BUDGET + 1), [f"{_PAGE}: 65537 bytes, allowed 65536"]),
        (
            Row("k8s_get_pods, first page (limit 500)", 400, 500, _BUDGET + 1),
            [
                "k8s_get_pods, first page (limit 500): median 400.0 ms, allowed less than 300",
                "k8s_get_pods, first page (limit 500): 65537 bytes, allowed 65536",
            ],
        ),
        # Only first pages have a target.
        (Row("k8s_get_pods, walk of all 5000", 1300, 1400, 800_000), []),
        (Row("API server, all 5000", 900, 1000, 11_000_000), []),
    ],
)
def test_what_a_first_page_misses_is_said_with_what_is_allowed(row: Row, said: list[str]) -> None:
    assert missed([row]) == said
