"""The front door: the command line, and the public names of the packages below in one place."""

from evaluate.cases import draw_cases, read_cases, write_cases
from evaluate.datasets import Dataset, load_dataset
from evaluate.results import Results, results
from evaluate.run import run
from programs import MOPE, MOTE, PROGRAMS, Case, Fusion, MLLM3Rec, Parts, Ranker, Ranking
from signatures import CONSUMER, MotivationSchema

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
    "Results",
    "draw_cases",
    "load_dataset",
    "read_cases",
    "results",
    "run",
    "write_cases",
]
