"""The front door: the command line, and the public names of the packages below in one place."""

from evaluate.data.dataset import Dataset
from evaluate.data.load import load_dataset
from evaluate.protocol.cases import draw_cases, read_cases, write_cases
from evaluate.runs.run import run_cases
from evaluate.runs.run_metrics import RunMetrics, run_metrics
from programs.mope import MOPE
from programs.mote import MOTE
from programs.program import PROGRAMS, Fusion, MLLM3Rec, Parts
from programs.ranker import Ranker
from signatures.rows import Case, Ranking
from signatures.schema import CONSUMER, MotivationSchema

__all__ = [
    "CONSUMER",
    "MOPE",
    "MOTE",
    "PROGRAMS",
    "Case",
    "Dataset",
    "Fusion",
    "MLLM3Rec",
    "MotivationSchema",
    "Parts",
    "Ranker",
    "Ranking",
    "RunMetrics",
    "draw_cases",
    "load_dataset",
    "read_cases",
    "run_cases",
    "run_metrics",
    "write_cases",
]
