"""The component that shows a label's ROC curve and confusion matrix on the dashboard."""

from kfp import dsl
from kfp.dsl import Artifact, ClassificationMetrics, Input, Output


@dsl.component(base_image="brain-tumor", install_kfp_package=False)
def label_curves(label: str, evaluation: Input[Artifact], curves: Output[ClassificationMetrics]):
    """Shows one label's ROC curve and confusion matrix on the dashboard.

    Args:
        label: The label's name, or `all labels` for the micro average.
        evaluation: From evaluate.
        curves: The final model's ROC curve and confusion matrix.
    """
    from brain_tumor import steps
    from brain_tumor.stores.files import write_json

    found = steps.label_curves(evaluation.path, label)
    write_json(curves.path, found.model_dump())
    curves.metadata["display_name"] = label
    # Short, since the dashboard truncates axis labels; the label's name is in the heading.
    curves.log_confusion_matrix(["no", "yes"], found.confusion_matrix)
    if found.roc:
        curves.log_roc_curve(found.roc.fpr, found.roc.tpr, found.roc.thresholds)
