"""The effect of a runtime on a model's probabilities, measured on val against torch in fp32."""

from pydantic import BaseModel, ConfigDict


class RuntimeEffect(BaseModel):
    """images: of val. mean, most: differences of probabilities. reference_auroc, auroc: macro, NaN if undefined."""

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")

    images: int
    mean: float
    most: float
    reference_auroc: float
    auroc: float

    def harmless(self, max_auroc_drop: float) -> bool:
        """Whether the macro-AUROC falls by no more than that; an undefined one does not pass."""
        return self.reference_auroc - self.auroc <= max_auroc_drop

    def __str__(self) -> str:
        return (
            f"on {self.images} val images macro-AUROC {self.auroc:.4f}, in fp32 {self.reference_auroc:.4f}; "
            f"probabilities differ by {self.mean:.4f} in the mean, {self.most:.3f} at most"
        )
