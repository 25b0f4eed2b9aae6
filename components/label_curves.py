from kfp import dsl
from kfp.dsl import ClassificationMetrics, Dataset, Input, Output


@dsl.component(base_image="brain-tumor", install_kfp_package=False)
def label_curves(label: str, predictions: Input[Dataset], curves: Output[ClassificationMetrics]):
    """Gives the dashboard one label's ROC curve and confusion matrix.

    Args:
        label: The label's name.
        predictions: From evaluate.
        curves: The final model's ROC curve and confusion matrix.
    """
    from dataclasses import asdict

    from brain_tumor.evaluation.curves import CATEGORIES, read_label_curves
    from brain_tumor.step import step
    from brain_tumor.storage import write_json

    with step():
        found = read_label_curves(predictions.path, label)
        write_json(curves.path, asdict(found))
        curves.log_confusion_matrix(CATEGORIES, found.confusion_matrix)
        if found.roc:
            curves.log_roc_curve(found.roc.fpr, found.roc.tpr, found.roc.thresholds)
