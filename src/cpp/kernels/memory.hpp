// Buffer: cache-line aligned scratch memory that frees itself.
#pragma once

#include <cstdlib>
#include <cstring>
#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#elif defined(_WIN32)
#include <malloc.h>
#endif

#include "types.hpp"

namespace fastfisher {

constexpr std::size_t kCacheLine = 64;

// Uninitialised, 64-byte aligned memory; throws std::bad_alloc (Python's MemoryError), so take it
// before a parallel region. Large blocks ask for huge pages: a 16 MB panel triangle otherwise costs
// 4096 page faults.
inline void* allocate_aligned(std::size_t bytes) {
  const std::size_t huge = std::size_t{1} << 21;
  const std::size_t alignment = bytes >= 2 * huge ? huge : kCacheLine;
  const std::size_t size = (bytes + alignment - 1) / alignment * alignment;
#if defined(_WIN32)
  void* p = _aligned_malloc(size ? size : alignment, alignment);
#else
  void* p = std::aligned_alloc(alignment, size ? size : alignment);
#endif
  if (!p) throw std::bad_alloc();
#if defined(__linux__)
  if (alignment == huge) madvise(p, size, MADV_HUGEPAGE);
#endif
  return p;
}

inline void free_aligned(void* p) {
#if defined(_WIN32)
  _aligned_free(p);
#else
  std::free(p);
#endif
}

template <class T>
class Buffer {
 public:
  Buffer() = default;
  explicit Buffer(Index size) : size_(size) {
    if (size < 0 || static_cast<std::size_t>(size) > static_cast<std::size_t>(-1) / 4 / sizeof(T))
      throw std::bad_alloc();
    data_ = static_cast<T*>(allocate_aligned(static_cast<std::size_t>(size) * sizeof(T)));
  }
  Buffer(Buffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  Buffer& operator=(Buffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  Buffer(const Buffer&) = delete;
  Buffer& operator=(const Buffer&) = delete;
  ~Buffer() { free_aligned(data_); }

  T* data() { return data_; }
  const T* data() const { return data_; }
  Index size() const { return size_; }
  T& operator[](Index i) { return data_[i]; }
  const T& operator[](Index i) const { return data_[i]; }
  void zero() {
    std::memset(static_cast<void*>(data_), 0, static_cast<std::size_t>(size_) * sizeof(T));
  }

 private:
  T* data_ = nullptr;
  Index size_ = 0;
};

}  // namespace fastfisher
