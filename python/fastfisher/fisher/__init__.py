"""Representations: F held in no more memory than its structure needs, one class per file."""

from fastfisher.fisher.block_diagonal import BlockDiagonalFisher
from fastfisher.fisher.dense import DenseFisher
from fastfisher.fisher.diagonal import DiagonalFisher
from fastfisher.fisher.kronecker import KroneckerFisher
from fastfisher.fisher.layer import LayerFisher
from fastfisher.fisher.layers import Conv2dLayer, LinearLayer
from fastfisher.fisher.low_rank import LowRankFisher
from fastfisher.fisher.protocol import Fisher
from fastfisher.fisher.score import ScoreFisher
from fastfisher.fisher.square_root import SquareRootFisher
from fastfisher.fisher.streaming import chunks

__all__ = [
    "REPRESENTATIONS",
    "BlockDiagonalFisher",
    "Conv2dLayer",
    "DenseFisher",
    "DiagonalFisher",
    "Fisher",
    "KroneckerFisher",
    "LayerFisher",
    "LinearLayer",
    "LowRankFisher",
    "ScoreFisher",
    "SquareRootFisher",
    "chunks",
]

# What `load` may build, by the name in the file.
REPRESENTATIONS: dict[str, type[Fisher]] = {
    kind.__name__: kind
    for kind in (
        BlockDiagonalFisher,
        DenseFisher,
        DiagonalFisher,
        KroneckerFisher,
        LayerFisher,
        LowRankFisher,
        ScoreFisher,
        SquareRootFisher,
    )
}
