"""What MLflow runs to serve one of our networks: it is logged as code, so that nothing is pickled.

MLflow copies this file beside the network; it needs nothing but `ssvi` and MLflow where it is served.
"""

from typing import Any

import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext

# What is said of an image, in this order; `probabilities` are those of all classes, by name.
COLUMNS = ("class", "probability", "predictive_entropy", "mutual_information", "cause", "probabilities")


class Network(PythonModel):
    """Images in, classes and how uncertain they are out."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the network from the files of its run."""
        import ssvi

        self.predictor = ssvi.load(context.artifacts["run"])

    def predict(
        self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """A row an image: `COLUMNS`.

        Args:
            context: not needed.
            model_input: a frame with a column `image`: the bytes of image files.
            params: `samples`, the number of weight samples.
        """
        found = self.predictor.predict(list(model_input["image"]), samples=(params or {}).get("samples"))
        # as objects, of which what is missing stays None, and null in JSON
        return pd.DataFrame(found.rows(), columns=list(COLUMNS), dtype=object)


set_model(Network())
