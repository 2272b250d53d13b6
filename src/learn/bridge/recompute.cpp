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

// Runs the part on `count` tensors; `again` is set in the backward pass. Returns errors as described in bridge.h.
using Call = char *(*)(void *part, const Tensor *const *inputs, size_t count, bool again, Tensor **result);

class Part : public torch::CustomClassHolder {
 public:
  Part(void *part, Call call, void (*drop)(void *)) : part(part), call(call), drop(drop) {}
  Part(const Part &) = delete;
  Part &operator=(const Part &) = delete;
  ~Part() override { drop(part); }

  Tensor operator()(const std::vector<Tensor> &inputs, bool again) const {
    std::vector<const Tensor *> pointers;
    for (const Tensor &input : inputs) pointers.push_back(&input);
    Tensor *result = nullptr;
    if (char *error = call(part, pointers.data(), pointers.size(), again, &result)) {
      const std::string message = error;
      free(error);
      throw std::runtime_error(message);
    }
    TORCH_CHECK(result, "a part returned no tensor");
    const std::unique_ptr<Tensor> owner(result);
    return *result;
  }

 private:
  void *part;
  Call call;
  void (*drop)(void *);
};

struct Recompute : torch::autograd::Function<Recompute> {
  static Tensor forward(AutogradContext *context, at::TensorList inputs, const c10::intrusive_ptr<Part> &part) {
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
    Tensor result;
    {
      at::AutoGradMode learning(true);
      result = (*part)(inputs, true);
    }
    const variable_list found = torch::autograd::grad({result}, wanted, {grads[0]});
    variable_list all;
    size_t next = 0;
    for (const Tensor &input : inputs) all.push_back(input.requires_grad() ? found[next++] : Tensor());
    all.emplace_back();  // the part has no gradient
    return all;
  }
};

}  // namespace

extern "C" char *caco_recompute(const Tensor *const *inputs, size_t count, void *part, Call call, void (*drop)(void *),
                                Tensor **result) {
  return guarded([&] {
    const auto owned = c10::make_intrusive<Part>(part, call, drop);
    std::vector<Tensor> list;
    for (size_t i = 0; i < count; ++i) list.push_back(*inputs[i]);
    *result = new Tensor(Recompute::apply(at::TensorList(list), owned));
  });
}
