"""BlockFactor: the Cholesky factor of diagonal blocks, or of a block-tridiagonal matrix."""

from typing import Any

from fastfisher.fisher.factor import Factor, MatrixFactor

__all__ = ["BlockFactor"]


class BlockFactor(MatrixFactor):
    """The factor that `BlockDiagonalFisher.factor` gives; linear in the number of blocks."""

    def inverse(self) -> Any:
        """Return A⁻¹, (p, p), symmetric (Hermitian); dense if the blocks have neighbours."""
        return Factor.inverse(self)

    def inverse_blocks(self) -> list[Any]:
        """Return the diagonal blocks of A⁻¹, the selected inverse.

        They are the covariances of each block's parameters given all data (the smoothed ones of a
        state-space model), by a recursion from the last block to the first: as long as two
        factorisations, whatever the number of blocks.
        """
        blocks: list[Any] = self._factor.inverse(self._threads).diagonal_blocks(1.0)
        return blocks

    def inverse_neighbours(self) -> list[Any]:
        """Return the blocks A⁻¹[b + 1, b] of a block-tridiagonal A: covariances of neighbours."""
        blocks: list[Any] = self._factor.inverse(self._threads).neighbours(1.0)
        return blocks

    def trace_with(self, blocks: Any) -> float:
        """Return tr F A⁻¹ for the sums of an F of the same blocks."""
        return float(blocks.dot(self._factor.inverse(self._threads)))
