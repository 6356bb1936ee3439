"""Decoupled Refusal Training (Yuan et al., ACL 2025, arXiv 2407.09121): the paper's part of derta.

For a harmful query q, a safe response r and a harmful response r̂, training minimises Eq. 2:

    L(θ) = − E[ log P(r | q, r̂_<k) ]                      MLE with harmful response prefix, k ~ U{0 … |r̂|}
           − E[ Σ_t log P(sorry | q, r̂_<t) ]               RTO: reinforced transition optimisation

Read the modules in this order:

| module | what it does |
|---|---|
| `tree` | lays both lines of Eq. 2 out as one row of tokens; `check_batch` keeps r̂ from ever being a target |
| `tree_builder` | draws k and the RTO positions of a triple; `METHODS` says which line each method trains on |
| `attention` | lets each token read its own sequence of the row and nothing else |
| `objective` | computes Eq. 2 |
| `chunked_log_probs` | computes log P of targets without ever holding the full logits |
| `verification` | compares a model's loss on trees with its loss on separate sequences before training starts |

Nothing here knows about the trainer: `derta.training` imports from here, never the other way around.
"""

from derta.method.attention import TreeAttention
from derta.method.chunked_log_probs import Targets, target_log_probs
from derta.method.objective import TERMS, LossNormalization, TermSums, combine, install_objective
from derta.method.tree import NO_TARGET, Term, TokenTree, check_batch, collate, context
from derta.method.tree_builder import CUT_POLICIES, METHODS, Method, TreeBuilder
from derta.method.verification import verify_objective

__all__ = [
    "CUT_POLICIES",
    "METHODS",
    "NO_TARGET",
    "TERMS",
    "LossNormalization",
    "Method",
    "Targets",
    "Term",
    "TermSums",
    "TokenTree",
    "TreeAttention",
    "TreeBuilder",
    "check_batch",
    "collate",
    "combine",
    "context",
    "install_objective",
    "target_log_probs",
    "verify_objective",
]
