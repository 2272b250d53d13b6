// Stands in for gloo's own headers, which libtorch's package leaves out although its library contains gloo.
//
// c10d's ProcessGroupGloo.hpp names these types, but holds them only by pointer. So their layout does not matter here:
// nothing of gloo is created or called except inside libtorch_cpu.so.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace gloo {

class Context {
 public:
  void setTimeout(std::chrono::milliseconds);
};

namespace transport {

class Device;

class UnboundBuffer {
 public:
  virtual ~UnboundBuffer();
};

}  // namespace transport

namespace rendezvous {

// c10d derives a class from this one, so its virtual functions are those of gloo, in their order.
class Store {
 public:
  virtual ~Store();
  virtual void set(const std::string &, const std::vector<char> &) = 0;
  virtual std::vector<char> get(const std::string &) = 0;
  virtual void wait(const std::vector<std::string> &) = 0;
  virtual void wait(const std::vector<std::string> &, const std::chrono::milliseconds &) = 0;
  virtual bool has_v2_support() { return false; }
  virtual std::vector<std::vector<char>> multi_get(const std::vector<std::string> &) { return {}; }
  virtual void multi_set(const std::vector<std::string> &, const std::vector<std::vector<char>> &) {}
  virtual void append(const std::string &, const std::vector<char> &) {}
  virtual int64_t add(const std::string &, int64_t) { return 0; }
};

}  // namespace rendezvous
}  // namespace gloo
