"""Every representation with its explicit matrix, so that one table of tests serves them all."""

import numpy as np

import fastfisher as ff
import network
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
        yield from of_networks(dtype)


def of_networks(dtype):
    """Yield the cases of a whole network, with more samples than parameters and with fewer."""
    for n, some in ((60, slice(2)), (9, slice(1, 4))):
        layers = network.draw(n, dtype)[some]
        S, weights = network.scores(layers), oracle.draw_weights(n)
        for center in (False, True):
            for reduction in ("mean", "sum"):
                keywords = {"weights": weights, "center": center, "reduction": reduction}
                tail = f"{n}-{'centred' if center else 'plain'}-{reduction}"
                yield (
                    f"layer-{tail}",
                    ff.LayerFisher(layers, **keywords),
                    oracle.fisher(S, **keywords),
                    S.astype(dtype),
                )
