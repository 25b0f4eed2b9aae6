"""Writes records with two processes. Arguments: the dataset, and the records."""

import signal
import sys
from pathlib import Path

signal.signal(signal.SIGINT, signal.default_int_handler)
from brain_tumor.artifacts.dataset import open_dataset
from brain_tumor.config import RecordsConfig
from brain_tumor.records.build import build_tfrecords

build_tfrecords(RecordsConfig(images_per_shard=4), open_dataset(sys.argv[1]), Path(sys.argv[2]), workers=2)
