// A part of a network whose activations are recomputed for the backward pass instead of being kept (Chen et al. 2016,
// "Training Deep Nets with Sublinear Memory Cost", arXiv 1604.06174). The part is a Rust closure: see recompute.rs.

#include "bridge.h"

#include <cstdlib>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

using at::Tensor;
using torch::autograd::AutogradContext;
using torch::autograd::variable_list;

namespace {

// Runs the part on `count` tensors and writes its `results` tensors; `again` is set in the backward pass. Returns errors
// as described in bridge.h.
using Call = char *(*)(void *part, const Tensor *const *inputs, size_t count, bool again, Tensor **results);

// Numbers of the first pass, for the second one, in the order in which a part computes them.
struct Kept {
  std::vector<std::vector<double>> numbers;
  size_t next = 0;
  bool again = false;
};

// The part that runs in this thread.
thread_local Kept *running = nullptr;

class Running {
 public:
  explicit Running(Kept *kept) : outer(running) { running = kept; }
  ~Running() { running = outer; }
  Running(const Running &) = delete;
  Running &operator=(const Running &) = delete;

 private:
  Kept *outer;
};

class Part : public torch::CustomClassHolder {
 public:
  Part(void *part, size_t results, Call call, void (*drop)(void *))
      : part(part), results(results), call(call), drop(drop) {}
  Part(const Part &) = delete;
  Part &operator=(const Part &) = delete;
  ~Part() override { drop(part); }

  variable_list operator()(const std::vector<Tensor> &inputs, bool again) {
    std::vector<const Tensor *> pointers;
    for (const Tensor &input : inputs) pointers.push_back(&input);
    std::vector<Tensor *> made(results);
    kept.next = 0;
    kept.again = again;
    const Running scope(&kept);
    if (char *error = call(part, pointers.data(), pointers.size(), again, made.data())) {
      const std::string message = error;
      free(error);
      throw std::runtime_error(message);
    }
    variable_list all;
    for (Tensor *tensor : made) {
      all.push_back(*tensor);
      delete tensor;
    }
    return all;
  }

 private:
  void *part;
  size_t results;
  Call call;
  void (*drop)(void *);
  Kept kept;
};

struct Recompute : torch::autograd::Function<Recompute> {
  static variable_list forward(AutogradContext *context, at::TensorList inputs,
                               const c10::intrusive_ptr<Part> &part) {
    context->save_for_backward(inputs.vec());
    context->saved_data["part"] = c10::IValue::make_capsule(part);
    return (*part)(inputs.vec(), false);
  }

  static variable_list backward(AutogradContext *context, variable_list grads) {
    TORCH_CHECK(!at::GradMode::is_enabled(), "recomputed parts have no second derivative");
    variable_list inputs, wanted;
    for (const Tensor &saved : context->get_saved_variables()) {
      inputs.push_back(saved.detach().set_requires_grad(saved.requires_grad()));
      if (saved.requires_grad()) wanted.push_back(inputs.back());
    }
    const auto part = c10::static_intrusive_pointer_cast<Part>(context->saved_data["part"].toCapsule());
    variable_list results;
    {
      at::AutoGradMode learning(true);
      results = (*part)(inputs, true);
    }
    for (size_t i = 0; i < results.size(); ++i)
      if (!grads[i].defined()) grads[i] = at::zeros_like(results[i]);
    const variable_list found = torch::autograd::grad(results, wanted, grads);
    variable_list all;
    size_t next = 0;
    for (const Tensor &input : inputs) all.push_back(input.requires_grad() ? found[next++] : Tensor());
    all.emplace_back();  // the part has no gradient
    return all;
  }
};

}  // namespace

std::vector<double> once_in_a_part(const std::function<std::vector<double>()> &compute) {
  if (!running) return compute();
  if (running->again) return running->numbers.at(running->next++);
  running->numbers.push_back(compute());
  return running->numbers.back();
}

extern "C" char *caco_recompute(const Tensor *const *inputs, size_t count, size_t results, void *part, Call call,
                                void (*drop)(void *), Tensor **made) {
  return guarded([&] {
    const auto owned = c10::make_intrusive<Part>(part, results, call, drop);
    std::vector<Tensor> list;
    for (size_t i = 0; i < count; ++i) list.push_back(*inputs[i]);
    give(Recompute::apply(at::TensorList(list), owned), made);
  });
}
