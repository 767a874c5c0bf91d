"""Claims of the papers, and what this library's own records say of them."""

from experiments.evidence.claims import CLAIMS as CLAIMS
from experiments.evidence.finding import Claim as Claim
from experiments.evidence.finding import Finding as Finding
from experiments.evidence.table import describe as describe
from experiments.evidence.table import make_tables as make_tables
