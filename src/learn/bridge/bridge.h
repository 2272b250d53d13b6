// What the files of the bridge share.
#pragma once

#include <torch/torch.h>

#include <cstring>

// A C++ exception must not reach Rust: it becomes a string that the caller frees, null when all went well.
template <typename F>
char *guarded(F &&body) {
  try {
    body();
    return nullptr;
  } catch (const std::exception &error) {
    return strdup(error.what());
  }
}
