// Rows made ready for a product, a look for what is not finite, and matrices mirrored.
#include "numbers.cuh"

// out[i, j] = √w_i (s_ij − m_j)                       np.sqrt(w)[:, None] * (S - m)
//
// scores  (n, p)  entry (i, j) at i · row + j · col
// root    (n,)    √w, or null: ones
// mean    (p,)    or null: zeros
// out     (n, p)  contiguous
template <class S, class T>
__global__ void __launch_bounds__(256)
    prepare(const S* __restrict__ scores, Index row, Index col, const T* __restrict__ root,
            const T* __restrict__ mean, Index n, Index p, T* __restrict__ out) {
  const Index j = static_cast<Index>(blockIdx.x) * 32 + threadIdx.x % 32;
  if (j >= p) return;
  const T m = mean ? mean[j] : T(0);
#pragma unroll 4
  for (Index i = static_cast<Index>(blockIdx.y) * 8 + threadIdx.x / 32; i < n; i += gridDim.y * 8) {
    const T w = root ? root[i] : T(1);
    out[i * p + j] = w * (static_cast<T>(widen(scores[i * row + j * col])) - m);
  }
}

// place = min(place, least i · p + j with an entry that is not finite)
//
// A minimum of integers has the same value in whatever order it is taken.
template <class S>
__global__ void __launch_bounds__(256)
    first_bad(const S* __restrict__ array, Index row, Index col, Index n, Index p,
              unsigned long long* __restrict__ place) {
  const Index j = static_cast<Index>(blockIdx.x) * 32 + threadIdx.x % 32;
  if (j >= p) return;
  for (Index i = static_cast<Index>(blockIdx.y) * 8 + threadIdx.x / 32; i < n; i += gridDim.y * 8)
    if (!finite(widen(array[i * row + j * col]))) {
      atomicMin(place, static_cast<unsigned long long>(i * p + j));
      return;
    }
}

// out = scale · A, both triangles, of which the lower one is read; Hermitian with Parts = 2.
//                                                     scale * (tril(A) + tril(A, -1).conj().T)
// lower  (p, p)  contiguous, Parts numbers an entry
// out    (p, p)  entry (i, j) at i · row + j · col, in entries
//
// Tiles of 32 × 32 on and below the diagonal, turned in shared memory; 32 × 8 threads.
template <class T, int Parts>
__global__ void __launch_bounds__(256)
    mirror(const T* __restrict__ lower, Index p, T scale, T* __restrict__ out, Index row,
           Index col) {
  __shared__ T tile[Parts][32][33];
  if (blockIdx.x > blockIdx.y) return;
  const int x = threadIdx.x % 32;
  const Index top = static_cast<Index>(blockIdx.y) * 32, left = static_cast<Index>(blockIdx.x) * 32;
  for (int y = threadIdx.x / 32; y < 32; y += 8) {
    const Index i = top + y, j = left + x;
    if (i >= p || j > i) continue;
    for (int c = 0; c < Parts; ++c) {
      const T value = scale * lower[(i * p + j) * Parts + c];
      tile[c][y][x] = c == 1 && i == j ? T(0) : value;
      out[(i * row + j * col) * Parts + c] = tile[c][y][x];
    }
  }
  __syncthreads();
  for (int y = threadIdx.x / 32; y < 32; y += 8) {
    const Index i = top + x, j = left + y;
    if (i >= p || j >= i) continue;
    for (int c = 0; c < Parts; ++c)
      out[(j * row + i * col) * Parts + c] = c == 1 ? -tile[c][x][y] : tile[c][x][y];
  }
}
