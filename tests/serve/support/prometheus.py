"""TODO"""

from prometheus_client.parser import text_string_to_metric_families


def parsed(text: bytes) -> dict[tuple[str, ...], float]:
    """Sample and its labels' values, in the order of the labels' names -> its value, as Prometheus reads them."""
    families = text_string_to_metric_families(text.decode())
    return {
        (one.name, *(one.labels[name] for name in sorted(one.labels))): one.value
        for family in families
        for one in family.samples
        if not one.name.endswith("_created")
    }
