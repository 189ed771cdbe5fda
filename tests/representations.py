"""Every representation with its explicit matrix, so that one table of tests serves them all."""

import numpy as np

import fastfisher as ff
import kronecker
import oracle


def cases(dtype=np.float64):
    """Yield (name, representation, explicit matrix in double precision, the scores)."""
    for n, p in ((60, 13), (9, 26)):
        S = oracle.draw(n, p, dtype)
        weights = oracle.draw_weights(n)
        for center in (False, True):
            for reduction in ("mean", "sum"):
                keywords = {"weights": weights, "center": center, "reduction": reduction}
                F = oracle.fisher(S, **keywords)
                tail = f"{n}x{p}-{'centred' if center else 'plain'}-{reduction}"
                yield f"dense-{tail}", ff.DenseFisher.from_scores(S, **keywords), F, S
                diagonal = ff.DiagonalFisher.from_scores(S, **keywords)
                yield f"diagonal-{tail}", diagonal, np.diag(np.diag(F)), S
                yield f"score-{tail}", ff.ScoreFisher(S, **keywords), F, S
    if np.dtype(dtype).kind != "c":
        yield from of_layers(dtype)


def of_layers(dtype):
    """Yield the cases of two layers; their scores are the per-sample gradients."""
    for n, shapes in ((60, ((3, 4), (2, 3))), (9, ((1, 5), (4, 2)))):
        layers = kronecker.draw(n, shapes, dtype)
        weights, S = oracle.draw_weights(n), kronecker.scores(layers)
        for reduction in ("mean", "sum"):
            keywords = {"weights": weights, "reduction": reduction}
            for name, define in kronecker.DEFINITIONS.items():
                options = {} if name == "kfac" else {name: True}
                fisher = ff.KroneckerFisher.from_layers(layers, **keywords, **options)
                yield f"{name}-{n}-{reduction}", fisher, define(layers, **keywords), S
