// Kernels run without the interpreter's lock, and the threads of a program that ends rest.
#pragma once

#include <pybind11/pybind11.h>

#include <chrono>
#include <thread>

#if defined(__GLIBCXX__)
#include <cxxabi.h>
#endif

namespace fastfisher::bindings {

// Calls `enter`, which takes the interpreter's lock or runs Python. Before version 3.14 an
// interpreter that ends does so by pthread_exit in whatever thread asks for its lock, which with
// glibc unwinds the stack: destructors would give back Python objects without the lock, and the
// first that may not throw would end the process. Such a thread, a daemon, rests here until the
// process is gone, as it does in Python from 3.14 on.
template <class Enter>
void enter_or_rest(Enter&& enter) {
#if defined(__GLIBCXX__)
  try {
    enter();
  } catch (abi::__forced_unwind&) {
    for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
  }
#else
  enter();
#endif
}

// The thread has no lock while one of these is alive.
class WithoutGil {
 public:
  WithoutGil() : state_(PyEval_SaveThread()) {}
  ~WithoutGil() {
    enter_or_rest([this] { PyEval_RestoreThread(state_); });
  }
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;

 private:
  PyThreadState* state_;
};

// The thread has the lock again while one of these is alive, inside a WithoutGil of its own.
class WithGil {
 public:
  WithGil() {
    enter_or_rest([this] { state_ = PyGILState_Ensure(); });
  }
  ~WithGil() { PyGILState_Release(state_); }
  WithGil(const WithGil&) = delete;
  WithGil& operator=(const WithGil&) = delete;

 private:
  PyGILState_STATE state_{};
};

}  // namespace fastfisher::bindings
