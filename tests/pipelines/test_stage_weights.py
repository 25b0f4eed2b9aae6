"""Staging a backbone's ImageNet weights in a bucket."""

from dataclasses import replace
from typing import Any

import keras
import numpy as np
import pytest

from brain_tumor.config import ModelConfig
from brain_tumor.configure import configure
from brain_tumor.model import backbone as backbones
from brain_tumor.model.backbone import build_backbone
from brain_tumor.runtime.errors import InputError
from pipelines.stage_weights import stage_weights
from tests.unit.buckets import S3Bucket

CONFIG = ModelConfig(backbone="resnet50", image_size=32)


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> list[keras.Model]:
    """The models that Keras built with ImageNet weights; to avoid a download, the weights are random here."""
    known, built = backbones.BACKBONES["resnet50"], []

    def constructor(weights: str | None, **options: Any) -> keras.Model:
        model = known.build(weights=None, **options)
        if weights == "imagenet":
            built.append(model)
        return model

    monkeypatch.setitem(backbones.BACKBONES, "resnet50", replace(known, build=constructor))
    return built


def test_staged_weights_are_the_start_of_a_model(s3_bucket: S3Bucket, fetched: list[keras.Model]) -> None:
    address = stage_weights(CONFIG, f"{s3_bucket.address}/weights/")
    assert address == f"{s3_bucket.address}/weights/resnet50-imagenet.weights.h5"
    assert s3_bucket.names() == ["weights/resnet50-imagenet.weights.h5"]

    config = configure(["model.backbone=resnet50", "model.image_size=32", f"model.weights={address}"])
    model = config.trainings["phase1_box"].model
    assert model.weights_fingerprint
    [original] = fetched
    for ours, theirs in zip(build_backbone(model).get_weights(), original.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert len(fetched) == 1, "weights were downloaded only once"


def test_a_bucket_without_write_access_is_detected_before_the_download(
    s3_bucket: S3Bucket, fetched: list[keras.Model]
) -> None:
    with pytest.raises(InputError, match=r"s3://nobodys-bucket"):
        stage_weights(CONFIG, "s3://nobodys-bucket/weights")
    assert not fetched


def test_weights_that_are_not_in_the_bucket_are_one_sentence(s3_bucket: S3Bucket) -> None:
    config = CONFIG.model_copy(update={"weights": f"{s3_bucket.address}/none.weights.h5"})
    with pytest.raises(InputError, match=r"model\.weights=s3://bucket/none\.weights\.h5 does not exist"):
        build_backbone(config)
