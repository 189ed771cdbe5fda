// The schedule of a product in chunks of rows: packing and computing overlap, and nobody meets at a
// barrier.
#pragma once

#include <algorithm>
#include <vector>

#include "parallel.hpp"

namespace fastfisher {

// Below this many flops a second thread costs more than it brings.
constexpr double kFlopsPerThread = 4e6;

inline int useful_threads(int requested, double flops) {
  const double most = std::max(1.0, flops / kFlopsPerThread);
  return static_cast<int>(std::min<double>(team_size(requested), most));
}

// A tile of kTilePanels blocks (0.4 MB) stays in the second-level cache while columns stream past
// it.
constexpr Index kTilePanels = 8;

// Chunks of rows, packed once and used by every output tile, without a barrier: all tasks stand in
// one order (run_in_order) and wait only for earlier ones. Chunk c+1 is packed in the middle of the
// tiles of chunk c, into the buffer that the tiles of chunk c-1 have left by then. An output tile
// takes its chunks one after the other, which fixes the order of the sum.
//   pack(chunk, item, thread), tile(chunk, item)
template <class Pack, class Tile>
void run_chunks(int threads, Index chunks, Index packs, Index tiles, Pack&& pack, Tile&& tile) {
  // Tasks finished: packs of each chunk, tiles of each chunk, chunks of each tile.
  std::vector<Finished> packed(static_cast<std::size_t>(chunks)),
      tiled(static_cast<std::size_t>(chunks)), taken(static_cast<std::size_t>(tiles));
  const Index half = tiles / 2, period = packs + tiles;
  const auto run_pack = [&](Index chunk, Index item, int thread) {
    if (chunk >= chunks) return;
    if (chunk >= 2) tiled[static_cast<std::size_t>(chunk - 2)].wait(tiles);
    pack(chunk, item, thread);
    packed[static_cast<std::size_t>(chunk)].add();
  };
  const auto run_tile = [&](Index chunk, Index item) {
    packed[static_cast<std::size_t>(chunk)].wait(packs);
    taken[static_cast<std::size_t>(item)].wait(chunk);
    tile(chunk, item);
    taken[static_cast<std::size_t>(item)].add();
    tiled[static_cast<std::size_t>(chunk)].add();
  };
  run_in_order(threads, packs + chunks * period, [&](Index task, int thread) {
    if (task < packs) return run_pack(0, task, thread);
    const Index chunk = (task - packs) / period, at = (task - packs) % period;
    if (at < half) return run_tile(chunk, at);
    if (at < half + packs) return run_pack(chunk + 1, at - half, thread);
    run_tile(chunk, at - packs);
  });
}

}  // namespace fastfisher
