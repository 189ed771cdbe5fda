"""BlockFactor: the Cholesky factor of diagonal blocks, or of a block-tridiagonal matrix."""

from typing import Any

from fastfisher import _memory
from fastfisher._ops.conjugates import hermitian_part
from fastfisher._range import in_range
from fastfisher.fisher.factor import Factor, MatrixFactor

__all__ = ["BlockFactor"]


class BlockFactor(MatrixFactor):
    """The factor that `BlockDiagonalFisher.factor` gives; linear in the number of blocks."""

    @in_range
    def inverse(self) -> Any:
        """Return A⁻¹, (p, p), symmetric (Hermitian); dense if the blocks have neighbours."""
        if self._factor.tridiagonal:
            return self._dense_inverse()
        _memory.guard(
            self.shape[0] ** 2 * self._dtype.itemsize,
            "inverse",
            "inverse_blocks() and solve() do without the matrix.",
        )
        out, start = self._ops.zeros(self.shape, self._dtype), 0
        for block in self._factor.inverse(self._threads).diagonal_blocks(1.0):
            end = start + len(block)
            out[start:end, start:end] = block
            start = end
        return out

    def _dense_inverse(self) -> Any:
        X = Factor.inverse(self)
        if self._dtype.kind != "c":
            return X
        # The two real columns of a complex one differ by the condition number times eps, which a
        # residual A X − I sees; their mean commutes with i, as A does, and leaves none.
        params = self.shape[0]
        turned = self.solve_columns(1j * self._ops.xp.eye(params, dtype=self._dtype)) / 1j
        return (X + hermitian_part(turned)) / 2

    @in_range
    def inverse_blocks(self) -> list[Any]:
        """Return the diagonal blocks of A⁻¹, the selected inverse.

        They are the covariances of each block's parameters given all data (the smoothed ones of a
        state-space model), by a recursion from the last block to the first: as long as two
        factorisations, whatever the number of blocks.
        """
        blocks: list[Any] = self._factor.inverse(self._threads).diagonal_blocks(1.0)
        return blocks

    @in_range
    def inverse_neighbours(self) -> list[Any]:
        """Return the blocks A⁻¹[b + 1, b] of a block-tridiagonal A: covariances of neighbours."""
        blocks: list[Any] = self._factor.inverse(self._threads).neighbours(1.0)
        return blocks

    def trace_with(self, blocks: Any) -> float:
        """Return tr F A⁻¹ for the sums of an F of the same blocks."""
        return float(blocks.dot(self._factor.inverse(self._threads)))
