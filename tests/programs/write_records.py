"""Writes records with two processes that wait at an image. Arguments: the dataset, the records, the image."""

import os
import signal
import sys
from pathlib import Path

signal.signal(signal.SIGINT, signal.default_int_handler)
from brain_tumor.artifacts.dataset import open_dataset
from brain_tumor.config import RecordsConfig
from brain_tumor.records.build import build_tfrecords

dataset = open_dataset(sys.argv[1])
# A pipe in the image's place: its reader waits until somebody writes to it.
image = Path(sys.argv[3])
image.unlink()
os.mkfifo(image)
build_tfrecords(RecordsConfig(images_per_shard=4), dataset, Path(sys.argv[2]), workers=2)
