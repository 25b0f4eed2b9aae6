"""Runs the compiled pipeline on this machine: `python -m pipelines.run [OVERRIDE ...]`."""

import json
import logging
import os
import re
import shutil
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable
from contextlib import ExitStack, redirect_stdout
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, TextIO

import yaml
from kfp import local
from kfp.components import load_component_from_file

from brain_tumor import tracking
from brain_tumor.compose import compose, step_configs
from brain_tumor.errors import InputError
from brain_tumor.evaluation.report import compute_metrics, scalar_metrics, summary_rows
from brain_tumor.evaluation.table import read_predictions
from brain_tumor.step import step
from brain_tumor.storage import write_json
from pipelines.compile import compile_pipeline, load_target
from pipelines.image import ROOT, image_tag

LAST_LINES = 25
