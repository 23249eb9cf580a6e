"""The effect of a runtime on a model's answers, measured on val against torch in fp32."""

from dataclasses import replace

from pydantic import BaseModel, ConfigDict

from chestai.config import schema
from chestai.lake.lake import Lake
from chestai.model.runtimes import Runtime
from chestai.model.runtimes.quantised_file import QuantisedFile


class RuntimeEffect(BaseModel):
    """What changes if a runtime takes the place of torch in fp32.

    Attributes:
        images: Number of val images.
        mean, most: Differences of probabilities.
        reference_auroc, auroc: Macro-AUROC, NaN if undefined.
        changed_buckets: Share of the images that come into another bucket.
        changed_calls: Share of the calls (one per image and finding with an operating point) that change.
        map_correlation: Mean Pearson correlation of the evidence maps of positive findings; NaN if there is none.
        quantised: The network that was measured; None unless the precision is int8.
    """

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")

    images: int
    mean: float
    most: float
    reference_auroc: float
    auroc: float
    changed_buckets: float
    changed_calls: float
    map_correlation: float
    quantised: QuantisedFile | None = None

    def find_fault(self, limits: schema.Runtime) -> str | None:
        """Returns the limit that it breaks, as `key=value`; None if it is harmless. An undefined AUROC is a fault."""
        if not self.reference_auroc - self.auroc <= limits.max_auroc_drop:
            return f"runtime.max_auroc_drop={limits.max_auroc_drop:g}"
        if self.changed_buckets > limits.max_changed_buckets:
            return f"runtime.max_changed_buckets={limits.max_changed_buckets:g}"
        if self.changed_calls > limits.max_changed_calls:
            return f"runtime.max_changed_calls={limits.max_changed_calls:g}"
        return None

    def complete(self, runtime: Runtime, lake: Lake) -> Runtime:
        """Returns the runtime that was measured: with its quantised network, if it has one. Raises UserError."""
        return runtime if self.quantised is None else replace(runtime, quantised=self.quantised.read(lake))

    def __str__(self) -> str:
        return (
            f"on {self.images} val images macro-AUROC {self.auroc:.4f}, in fp32 {self.reference_auroc:.4f}; "
            f"probabilities differ by {self.mean:.4f} in the mean, {self.most:.3f} at most; "
            f"{self.changed_buckets:.1%} of buckets and {self.changed_calls:.1%} of calls change; "
            f"maps correlate by {self.map_correlation:.3f}"
        )
