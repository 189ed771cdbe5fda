// Hermitian matrices as panel triangles of real numbers: each entry is a 2 × 2 block.
//
// A complex p × p matrix A acts on (Re x₀, Im x₀, Re x₁, …) as the real 2p × 2p matrix R(A) of the
// blocks [[Re, −Im], [Im, Re]]; A is Hermitian positive definite if and only if R(A) is symmetric
// positive definite, and R(A)⁻¹ = R(A⁻¹). So a Hermitian F is held as the triangle of
//
//     H = ½ R(conj F),     F[r, c] = (H[2r, 2c] + H[2r+1, 2c+1]) + i (H[2r, 2c+1] − H[2r+1, 2c])
//
// and everything that the real matrix answers (products, sums, Cholesky, solves) serves it. Panels
// have an even number of rows, so no block is cut.
#pragma once

#include <complex>

#include "triangle.hpp"

namespace fastfisher {

// H = ½ R(conj F) of what the engine makes of complex scores in their real form, in place:
// G = Σ w x xᵀ (2p, 2p) holds F = Σ w s* sᵀ by the formula above, and this is its orthogonal
// projection onto matrices of the form R. So it may follow each addition to a triangle that has the
// form already. With `conjugate` the matrix is conjugated once more, for the Gram matrix, whose
// operand has the parameters as its rows.
// Parallel over panels, same bits for any thread count. 2p² numbers read and written.
template <class T>
void hermitian_project(T* triangle, Index params, bool conjugate, int threads);

// H of the lower triangle of a Hermitian matrix (p, p), imaginary parts of its diagonal unread.
// NonFinite names the first bad (row, col). Parallel over panels; p²/2 read, 2p² written.
template <class T>
Report hermitian_from_dense(const ConstMatrix<std::complex<T>>& matrix, T* triangle, int threads);

// out = scale · F, (p, p) in full; also for a G that is not projected. Parallel over panels; 2p²
// read, p² written.
template <class T>
void hermitian_to_dense(const T* triangle, double scale, Matrix<std::complex<T>> out, int threads);

}  // namespace fastfisher
