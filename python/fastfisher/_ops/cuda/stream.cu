// One reading of the scores: sums over samples and Fisher-vector products, bound by memory.
#include "numbers.cuh"

// Rows whose loads are under way at once in each thread: with 16 bytes each and 2048 threads,
// 128 kB per multiprocessor, several times what latency × bandwidth asks for (about 40 kB).
constexpr int kRows = 4;

// partial[b, j] = Σ_{i in slab b} w_i (s_ij − m_j)    or, with Squares, Σ w_i (s_ij − m_j)²
//                 (w * (S - m)).sum(0)                                  (w * (S - m) ** 2).sum(0)
//
// scores   (n, p)  entry (i, j) at i · row + j · col; V > 1: col = 1, aligned, V divides p
// weights  (n,)    or null: ones
// mean     (p,)    or null: zeros
// partial  (gridDim.y, p)
//
// A block takes `lanes` packs of V columns and the rows of slab blockIdx.y, blockDim.x / lanes at a
// time; lanes and blockDim.x are powers of two. Which numbers meet when follows from the shapes and
// the grid: the same bits each time. One reading of the scores.
template <class S, class T, int V, bool Squares>
__global__ void __launch_bounds__(256)
    column_sums(const S* __restrict__ scores, Index row, Index col, const T* __restrict__ weights,
                const T* __restrict__ mean, Index n, Index p, int lanes, T* __restrict__ partial) {
  __shared__ T shared[256 * V];
  const int lane = threadIdx.x % lanes, line = threadIdx.x / lanes, lines = blockDim.x / lanes;
  const Index j = (static_cast<Index>(blockIdx.x) * lanes + lane) * V;
  const Index slabs = gridDim.y, slab = blockIdx.y;
  const Index end = n / slabs * (slab + 1) + (slab + 1 < n % slabs ? slab + 1 : n % slabs);
  Index i = n / slabs * slab + (slab < n % slabs ? slab : n % slabs) + line;
  T sum[V], m[V];
  for (int v = 0; v < V; ++v) {
    sum[v] = T(0);
    m[v] = mean && j < p ? mean[j + v] : T(0);
  }
  if (j < p) {
    const S* at = scores + j * col;
    for (; i + (kRows - 1) * lines < end; i += kRows * lines) {
      Pack<S, V> x[kRows];
      T w[kRows];
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        x[r] = load<S, V>(at + (i + r * lines) * row);
        w[r] = weights ? weights[i + r * lines] : T(1);
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r)
#pragma unroll
        for (int v = 0; v < V; ++v) {
          const T d = static_cast<T>(widen(x[r].at[v])) - m[v];
          sum[v] += w[r] * (Squares ? d * d : d);
        }
    }
    for (; i < end; i += lines) {
      const Pack<S, V> x = load<S, V>(at + i * row);
      const T w = weights ? weights[i] : T(1);
#pragma unroll
      for (int v = 0; v < V; ++v) {
        const T d = static_cast<T>(widen(x.at[v])) - m[v];
        sum[v] += w * (Squares ? d * d : d);
      }
    }
  }
  for (int v = 0; v < V; ++v) shared[threadIdx.x * V + v] = sum[v];
  for (int half = lines / 2; half > 0; half /= 2) {
    __syncthreads();
    if (line < half)
      for (int v = 0; v < V; ++v)
        shared[threadIdx.x * V + v] += shared[(threadIdx.x + half * lanes) * V + v];
  }
  if (line == 0 && j < p)
    for (int v = 0; v < V; ++v) partial[slab * p + j + v] = shared[threadIdx.x * V + v];
}

// out[j] = scale · Σ_b partial[b, j] + damping · x[j]       scale * partial.sum(0) + damping * x
//
// partial (count, width), x (width,) or null. A block of 32 × 32 threads takes 32 columns.
template <class T>
__global__ void __launch_bounds__(1024)
    sum_partials(const T* __restrict__ partial, Index count, Index width, T scale, T damping,
                 const T* __restrict__ x, T* __restrict__ out) {
  __shared__ T shared[1024];
  const int lane = threadIdx.x % 32, line = threadIdx.x / 32;
  const Index j = static_cast<Index>(blockIdx.x) * 32 + lane;
  T sum = T(0);
  if (j < width) {
#pragma unroll 4
    for (Index b = line; b < count; b += 32) sum += partial[b * width + j];
  }
  shared[threadIdx.x] = sum;
  for (int half = 16; half > 0; half /= 2) {
    __syncthreads();
    if (line < half) shared[threadIdx.x] += shared[threadIdx.x + half * 32];
  }
  if (line == 0 && j < width) out[j] = scale * shared[lane] + (x ? damping * x[j] : T(0));
}

// Sums t[0 … N) over the lanes of a warp, N ≤ 32 a power of two, by halving: at each step a lane
// hands on one half of its sums and keeps the other. Lane l ends with the sum number l / (32 / N).
template <int Left, int Step, int N, class T>
__device__ inline void sum_lanes(T (&t)[N]) {
  if constexpr (Left > 0) {
    const bool upper = threadIdx.x & Step;
#pragma unroll
    for (int q = 0; q < Left; ++q) {
      const T kept = upper ? t[q + Left] : t[q], given = upper ? t[q] : t[q + Left];
      t[q] = kept + __shfl_xor_sync(0xffffffffu, given, Step);
    }
  } else {
    t[0] += __shfl_xor_sync(0xffffffffu, t[0], Step);
  }
  if constexpr (Step > 1) sum_lanes<Left / 2, Step / 2>(t);
}

// partial[b] = Σ_{rows i of block b} w_i (s_i − m) ((s_i − m)ᵀ X)     D.T @ (w * (D @ X)), D = S − m
//
// scores   (n, p)  row i at i · row, columns side by side; V > 1: aligned, V divides p
// weights  (n,)    or null: ones
// mean     (p,)    read if Centred
// vectors  (p, k)  k ≤ K
// partial  (gridDim.x, p, k)
//
// A team of threads holds a row in registers, E packs of V columns each: the dots with X are taken,
// summed over the team, and the row is added to what the team sums, so a score is read once. R rows
// are under way at once. Wide = false: a warp is a team, and nobody meets at a barrier until the
// end; true: the block is one. Needs V · E · team ≥ p. The same bits each time on one grid.
template <class S, class T, int V, int K, int E, bool Wide, bool Centred>
__global__ void __launch_bounds__(Wide ? 512 : 128, Wide ? 1 : 3)
    fvp_rows(const S* __restrict__ scores, Index row, const T* __restrict__ weights,
             const T* __restrict__ mean, const T* __restrict__ vectors, Index n, Index p, int k,
             T* __restrict__ partial) {
  // R · E = 8 packs of a thread are under way, fewer where 128 bytes of dots leave no registers.
  constexpr int kDots = 128 / sizeof(T);
  constexpr int R = 8 / E < kDots / K ? 8 / E : kDots / K, N = R * K;
  constexpr int kWarps = 16;
  __shared__ T shared[Wide ? kWarps * N + N : 32 * E * V * K];
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
  const int mine = Wide ? threadIdx.x : lane, team = Wide ? blockDim.x : 32;
  const Index teams = Wide ? gridDim.x : static_cast<Index>(gridDim.x) * warps;
  const Index number = Wide ? blockIdx.x : static_cast<Index>(blockIdx.x) * warps + warp;
  T X[E * V][K], sum[E * V][K];
#pragma unroll
  for (int e = 0; e < E * V; ++e) {
    const Index j = static_cast<Index>(e / V * team + mine) * V + e % V;
#pragma unroll
    for (int q = 0; q < K; ++q) {
      X[e][q] = j < p && q < k ? vectors[j * k + q] : T(0);
      sum[e][q] = T(0);
    }
  }
  for (Index i = number * R; i < n; i += teams * R) {
    Pack<S, V> s[R][E];
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
      for (int e = 0; e < E; ++e) {
        const Index j = static_cast<Index>(e * team + mine) * V;
        if (i + r < n && j < p)
          s[r][e] = load<S, V>(scores + (i + r) * row + j);
        else
          s[r][e] = Pack<S, V>{};
      }
    const auto centred = [&](int r, int e) {
      T x = static_cast<T>(widen(s[r][e / V].at[e % V]));
      if (Centred) {
        const Index j = static_cast<Index>(e / V * team + mine) * V + e % V;
        x -= j < p ? mean[j] : T(0);
      }
      return x;
    };
    T t[N];
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
      for (int q = 0; q < K; ++q) {
        T dot = T(0);
#pragma unroll
        for (int e = 0; e < E * V; ++e) dot += centred(r, e) * X[e][q];
        t[r * K + q] = dot;
      }
    sum_lanes<N / 2, 16>(t);
    T total = t[0];
    if (Wide) {
      if (lane % (32 / N) == 0) shared[warp * N + lane / (32 / N)] = total;
      __syncthreads();
      if (threadIdx.x < N) {
        T all = T(0);
        for (int w = 0; w < warps; ++w) all += shared[w * N + threadIdx.x];
        shared[kWarps * N + threadIdx.x] = all;
      }
      __syncthreads();
    }
#pragma unroll
    for (int r = 0; r < R; ++r) {
      const T w = i + r >= n ? T(0) : weights ? weights[i + r] : T(1);
#pragma unroll
      for (int q = 0; q < K; ++q) {
        const int place = r * K + q;
        const T dot = Wide ? shared[kWarps * N + place]
                           : __shfl_sync(0xffffffffu, total, place * (32 / N));
        t[place] = w * dot;
      }
    }
#pragma unroll
    for (int r = 0; r < R; ++r)
#pragma unroll
      for (int e = 0; e < E * V; ++e) {
        const T x = centred(r, e);
#pragma unroll
        for (int q = 0; q < K; ++q) sum[e][q] += x * t[r * K + q];
      }
  }
  // The warps of a block one after the other, in this order.
  for (int turn = 0; turn < (Wide ? 1 : warps); ++turn) {
    if (Wide || warp == turn) {
#pragma unroll
      for (int e = 0; e < E * V; ++e) {
        const Index j = static_cast<Index>(e / V * team + mine) * V + e % V;
#pragma unroll
        for (int q = 0; q < K; ++q) {
          T* const held = shared + (e * K + q) * 32 + lane;
          const T all = Wide || turn == 0 ? sum[e][q] : *held + sum[e][q];
          if (Wide || turn == warps - 1) {
            if (j < p && q < k) partial[(blockIdx.x * p + j) * k + q] = all;
          } else {
            *held = all;
          }
        }
      }
    }
    if (!Wide) __syncthreads();
  }
}
