// Shared by the files of the bridge.
#pragma once

#include <torch/torch.h>

#include <cstring>

// A C++ exception must not reach Rust: it becomes a string that the caller frees, or null on success.
template <typename F>
char *guarded(F &&body) {
  try {
    body();
    return nullptr;
  } catch (const c10::Error &error) {
    return strdup(error.what_without_backtrace());
  } catch (const std::exception &error) {
    return strdup(error.what());
  }
}
