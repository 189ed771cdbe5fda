// Report: the status and numbers that every fallible kernel returns; only a lack of memory throws.
#pragma once

#include "types.hpp"

namespace fastfisher {

// The same numbers as `fastfisher.Status` in Python.
enum class Status : int {
  Success = 0,
  NotPositiveDefinite = 1,
  NonFinite = 2,
  Shifted = 3,
  Truncated = 4,
  MaxIterations = 5,
  NegativeCurvature = 6,
  Stagnated = 7,
};

// row, col name the place of the trouble (-1: no place); value is the number found there.
struct Report {
  Status status = Status::Success;
  Index row = -1;
  Index col = -1;
  double value = 0.0;

  bool ok() const { return status == Status::Success; }
};

}  // namespace fastfisher
