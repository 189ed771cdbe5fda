"""Every representation with its explicit matrix, so that one table of tests serves them all."""

import numpy as np

import fastfisher as ff
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
                root = ff.SquareRootFisher.from_scores(S, **keywords)
                yield f"root-{tail}", root, F, S
                yield f"score-{tail}", ff.ScoreFisher(S, **keywords), F, S
