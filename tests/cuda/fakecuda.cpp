// A "cuda" device in host memory for a CPU-only PyTorch; README.md says what it shows and what it cannot.
// Every operation runs the CPU's kernel on the same bytes, after the checks that a GPU would make: tensors of two devices in one
// operation, a generator of another device. It notes, or in sync mode 2 refuses, what would make the host wait.
// Random numbers depend on (seed, offset), as Philox's do, and differ from the CPU's.
#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <ATen/EmptyTensor.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/native/Resize.h>
#include <ATen/ops/_reshape_alias_native.h>
#include <ATen/ops/as_strided_native.h>
#include <ATen/ops/resize_native.h>
#include <ATen/ops/set_native.h>
#include <ATen/ops/unfold_native.h>
#include <ATen/ops/view_native.h>
#include <ATen/ops/view_as_real_native.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>
#include <torch/library.h>
#include <atomic>
#include <mutex>
#include <set>

namespace {
using at::Tensor;
const c10::Device CUDA0(c10::DeviceType::CUDA, 0);

// ---- memory
std::atomic<int64_t> in_use{0}, peak{0};
struct Block { void* p; int64_t n; };
void free_block(void* ctx) {
  auto* b = static_cast<Block*>(ctx);
  in_use -= b->n;
  std::free(b->p);
  delete b;
}
void grow(int64_t n) {
  int64_t now = in_use += n, old = peak;
  while (now > old && !peak.compare_exchange_weak(old, now)) {}
}
struct FakeAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t n) override {
    void* p = nullptr;
    if (n && posix_memalign(&p, 64, n)) TORCH_CHECK(false, "CUDA out of memory (fake)");
    if (n) std::memset(p, 0x7f, n);  // cudaMalloc gives no zeros: what is read before it is written shows (0x7f7f... is 3.4e38)
    grow((int64_t)n);
    return {p, new Block{p, (int64_t)n}, &free_block, CUDA0};
  }
  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }
  void copy_data(void* d, const void* s, std::size_t n) const override { std::memcpy(d, s, n); }
};
FakeAllocator allocator_;

// ---- guard
struct FakeGuard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return c10::DeviceType::CUDA; }
  c10::Device exchangeDevice(c10::Device) const override { return CUDA0; }
  c10::Device getDevice() const override { return CUDA0; }
  void setDevice(c10::Device) const override {}
  void uncheckedSetDevice(c10::Device) const noexcept override {}
  c10::Stream getStream(c10::Device d) const override { return c10::Stream(c10::Stream::DEFAULT, CUDA0); }
  c10::Stream getDefaultStream(c10::Device d) const override { return c10::Stream(c10::Stream::DEFAULT, CUDA0); }
  c10::Stream exchangeStream(c10::Stream s) const override { return s; }
  c10::DeviceIndex deviceCount() const noexcept override { return 1; }
  void record(void**, const c10::Stream&, const c10::DeviceIndex, const c10::EventFlag) const override {}
  void block(void*, const c10::Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void destroyEvent(void*, const c10::DeviceIndex) const noexcept override {}
  bool queryStream(const c10::Stream&) const override { return true; }
  void synchronizeStream(const c10::Stream&) const override {}
  void synchronizeEvent(void*) const override {}
  void synchronizeDevice(const c10::DeviceIndex) const override {}
  void recordDataPtrOnStream(const c10::DataPtr&, const c10::Stream&) const override {}
};

// ---- generators
uint64_t mix(uint64_t x) {  // SplitMix64
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}
struct FakeGenerator final : c10::GeneratorImpl {
  uint64_t seed_ = 67280421310721, offset_ = 0;
  FakeGenerator() : c10::GeneratorImpl(CUDA0, c10::DispatchKeySet(c10::DispatchKey::CUDA)) {}
  void set_current_seed(uint64_t s) override { seed_ = s; offset_ = 0; }
  void set_offset(uint64_t o) override { offset_ = o; }
  uint64_t get_offset() const override { return offset_; }
  uint64_t current_seed() const override { return seed_; }
  uint64_t seed() override { seed_ = mix(seed_); offset_ = 0; return seed_; }
  void set_state(const c10::TensorImpl& s) override {
    TORCH_CHECK(s.numel() == 16, "RNG state is wrong size");
    const uint64_t* p = reinterpret_cast<const uint64_t*>(s.data()); seed_ = p[0]; offset_ = p[1];
  }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override {
    auto t = at::detail::empty_cpu({16}, at::kByte, {}, {}, {}, {});
    uint64_t* p = reinterpret_cast<uint64_t*>(t.data_ptr()); p[0] = seed_; p[1] = offset_;
    return Tensor(t).getIntrusivePtr();
  }
  c10::intrusive_ptr<c10::GeneratorImpl> graphsafe_get_state() const override {
    return c10::intrusive_ptr<c10::GeneratorImpl>::reclaim(clone_impl());
  }
  FakeGenerator* clone_impl() const override {
    auto* g = new FakeGenerator();
    g->seed_ = seed_, g->offset_ = offset_;
    return g;
  }
  at::Generator next() {  // a CPU generator for one operation
    auto g = at::make_generator<at::CPUGeneratorImpl>(mix(seed_ ^ 0xc0da) ^ mix(offset_));
    offset_ += 4;
    return g;
  }
};
at::Generator& default_generator() { static at::Generator g = at::make_generator<FakeGenerator>(); return g; }
std::mutex rng;

// ---- hooks
} // namespace
namespace at {
struct CUDAHooks final : at::CUDAHooksInterface {
  explicit CUDAHooks(at::CUDAHooksArgs) {}
  void init() const override {}
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return true; }
  bool hasCUDA() const override { return true; }
  bool hasPrimaryContext(c10::DeviceIndex) const override { return true; }
  c10::DeviceIndex deviceCount() const override { return 1; }
  c10::DeviceIndex getCurrentDevice() const override { return 0; }
  c10::DeviceIndex exchangeDevice(c10::DeviceIndex) const override { return 0; }
  c10::DeviceIndex maybeExchangeDevice(c10::DeviceIndex) const override { return 0; }
  void setCurrentDevice(c10::DeviceIndex) const override {}
  c10::DeviceIndex current_device() const override { return 0; }
  int getNumGPUs() const override { return 1; }
  bool isPinnedPtr(const void*) const override { return false; }
  c10::Allocator* getPinnedMemoryAllocator() const override { return c10::GetAllocator(c10::kCPU); }
  c10::Device getDeviceFromPtr(void*) const override { return CUDA0; }
  const at::Generator& getDefaultGenerator(c10::DeviceIndex) const override { return default_generator(); }
  at::Generator getNewGenerator(c10::DeviceIndex) const override { return at::make_generator<FakeGenerator>(); }
  c10::Allocator* getCUDADeviceAllocator() const override { return &allocator_; }
  void deviceSynchronize(c10::DeviceIndex) const override {}
};
REGISTER_CUDA_HOOKS(CUDAHooks);
}  // namespace at


namespace {
// ---- what makes the host wait
std::atomic<int64_t> launches{0};  // operations sent to the device, about one kernel each
std::atomic<int64_t> pending{0};  // those since the host last waited
std::atomic<int64_t> sync_mode{0};  // 0 note, 2 refuse
std::vector<std::string> syncs;
std::mutex syncs_lock;
void launch() { launches++, pending++; }
void sync(const std::string& what) {
  TORCH_CHECK(sync_mode != 2, "called a synchronizing CUDA operation (", what, ")");
  std::lock_guard<std::mutex> g(syncs_lock);
  syncs.push_back(what);
  pending = 0;
}
const std::set<std::string> WAITS = {"nonzero", "masked_select", "_unique2", "unique_dim", "unique_consecutive", "repeat_interleave",
  "equal",
  "_linalg_eigh", "linalg_lstsq", "linalg_eigh", "bincount", "multinomial", "is_nonzero", "kthvalue_"};
const std::set<std::string> MAY_MIX = {"index", "index_put_", "_index_put_impl_"};  // indices may lie on the CPU: they are copied (a wait)
const std::set<std::string> SEEDED_WITHOUT_GENERATOR = {"native_dropout", "rand", "randn", "randint", "randperm"};

// ---- one storage seen from both devices
Tensor on_cpu(const Tensor& t) {
  if (!t.defined() || !t.is_cuda()) return t;
  auto s = t.storage();
  c10::Storage storage(c10::Storage::use_byte_size_t(), s.nbytes(), c10::DataPtr(s.mutable_data(), c10::Device(c10::kCPU)), nullptr, false);
  auto c = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), c10::DispatchKeySet(c10::DispatchKey::CPU), t.dtype());
  c.unsafeGetTensorImpl()->set_sizes_and_strides(t.sizes(), t.strides(), t.storage_offset());
  return c;
}
Tensor on_cuda(const Tensor& c, const std::vector<Tensor>& args) {
  if (!c.defined() || c.is_cuda()) return c;
  c10::Storage storage;
  for (auto& a : args)
    if (a.defined() && a.is_cuda() && c.storage().nbytes() && a.storage().data() == c.storage().data()) storage = a.storage();
  if (!storage) {
    auto* keep = new c10::Storage(c.storage());
    struct Ctx { c10::Storage* s; int64_t n; };
    auto* ctx = new Ctx{keep, (int64_t)c.storage().nbytes()};
    grow(ctx->n);
    storage = c10::Storage(c10::Storage::use_byte_size_t(), c.storage().nbytes(),
      c10::DataPtr(keep->mutable_data(), ctx, [](void* p) {
        auto* x = static_cast<Ctx*>(p);
        in_use -= x->n;
        delete x->s;
        delete x;
      }, CUDA0), &allocator_, true);
  }
  auto t = at::detail::make_tensor<c10::TensorImpl>(std::move(storage), c10::DispatchKeySet(c10::DispatchKey::CUDA), c.dtype());
  t.unsafeGetTensorImpl()->set_sizes_and_strides(c.sizes(), c.strides(), c.storage_offset());
  return t;
}

void fallback(const c10::OperatorHandle& op, torch::jit::Stack* stack) {
  launch();
  const auto& schema = op.schema();
  std::string name = schema.operator_name().name; name = name.substr(name.find("::") + 2);
  const size_t n = schema.arguments().size(), begin = stack->size() - n;
  std::vector<c10::IValue> before(stack->begin() + begin, stack->end());
  std::vector<Tensor> tensors; bool mask = false;
  for (auto& v : before) {
    if (v.isTensor()) tensors.push_back(v.toTensor());
    else if (v.isTensorList()) for (auto t : v.toTensorVector()) tensors.push_back(t);
    else if (v.isList()) for (c10::IValue e : v.toListRef()) if (e.isTensor()) {
      tensors.push_back(e.toTensor());
      mask |= e.toTensor().defined() && (e.toTensor().scalar_type() == at::kBool || e.toTensor().scalar_type() == at::kByte);
    }
  }
  bool cuda = false; const Tensor* other = nullptr;
  for (auto& t : tensors) if (t.defined()) { cuda |= t.is_cuda(); if (t.is_cpu() && t.dim() > 0) other = &t; }
  if (cuda && other) {
    if (MAY_MIX.count(name)) sync(name + " with indices on the CPU");
    else TORCH_CHECK(false, "Expected all tensors to be on the same device, but found at least two devices, cuda:0 and cpu! (", name, ")");
  }
  if (WAITS.count(name)) sync(name);
  if (mask) sync(name + " by a mask");

  std::vector<std::pair<Tensor, Tensor>> written;  // (CUDA, its CPU view), where the CPU's kernel may have changed the shape
  bool random = false;
  for (size_t i = 0; i < n; i++) {
    auto& v = (*stack)[begin + i];
    const auto& arg = schema.arguments()[i];
    if (v.isTensor()) {
      auto t = v.toTensor(); 
      if (t.defined() && t.is_cuda()) {
        bool write = arg.alias_info() && arg.alias_info()->isWrite();
        auto c = write && t.numel() == 0 ? at::empty({0}, t.options().device(c10::kCPU)) : on_cpu(t);
        if (write) written.emplace_back(t, c);
        v = c;
      }
    } else if (v.isTensorList()) {
      c10::List<Tensor> l; for (auto t : v.toTensorVector()) l.push_back(on_cpu(t)); v = l;
    } else if (v.isList() && v.toList().elementType()->isSubtypeOf(*c10::OptionalType::ofTensor())) {
      c10::List<std::optional<Tensor>> l;
      for (c10::IValue e : v.toListRef()) l.push_back(e.isTensor() ? std::optional<Tensor>(on_cpu(e.toTensor())) : std::nullopt);
      v = l;
    } else if (v.isDevice()) v = c10::Device(c10::kCPU);
    if (arg.type()->str().find("Generator") != std::string::npos || (v.isGenerator())) {
      at::Generator g = v.isGenerator() ? v.toGenerator() : default_generator();
      TORCH_CHECK(g.device().is_cuda(), "Expected a 'cuda' device type for generator but found '", g.device().type(), "'");
      std::lock_guard<std::mutex> lock(rng);
      v = static_cast<FakeGenerator*>(g.unsafeGetGeneratorImpl())->next();
      random = true;
    }
  }
  {
    at::AutoDispatchBelowADInplaceOrView below;
    if (!random && SEEDED_WITHOUT_GENERATOR.count(name)) {
      std::lock_guard<std::mutex> lock(rng);
      auto cpu = at::detail::getDefaultCPUGenerator(); auto state = cpu.get_state();
      auto g = static_cast<FakeGenerator*>(default_generator().unsafeGetGeneratorImpl())->next();
      cpu.set_state(g.get_state());
      op.callBoxed(stack);
      cpu.set_state(state);
    } else op.callBoxed(stack);
  }
  for (auto& [t, c] : written) if (t.sizes() != c.sizes() || (t.numel() == 0 && c.numel())) {
    at::native::resize_(t, c.sizes(), std::nullopt); on_cpu(t).copy_(c);
  } else if (t.data_ptr() != c.data_ptr() && c.numel()) on_cpu(t).copy_(c);
  const size_t r = schema.returns().size(), first = stack->size() - r;
  for (size_t i = 0; i < r; i++) {
    auto& v = (*stack)[first + i];
    const auto* alias = schema.returns()[i].alias_info();
    if (alias && alias->isWrite()) {
      for (size_t j = 0; j < n; j++) {
        const auto* a = schema.arguments()[j].alias_info();
        if (a && a->isWrite() && a->beforeSets() == alias->beforeSets()) v = before[j];
      }
    } else if (v.isTensor()) v = on_cuda(v.toTensor(), tensors);
    else if (v.isTensorList()) { c10::List<Tensor> l; for (auto t : v.toTensorVector()) l.push_back(on_cuda(t, tensors)); v = l; }
  }
}

Tensor& copy_(Tensor& self, const Tensor& src, bool non_blocking) {
  launch();
  if (self.device() != src.device() && self.numel()) sync(self.is_cuda() ? "copy from the CPU" : "copy to the CPU");
  at::AutoDispatchBelowADInplaceOrView below;
  auto to = on_cpu(self); to.copy_(on_cpu(src), false);
  return self;
}
at::Scalar local_scalar_dense(const Tensor& self) { sync("item"); at::AutoDispatchBelowADInplaceOrView below; return on_cpu(self).item(); }
const c10::DispatchKeySet KEYS(c10::DispatchKey::CUDA);
using Type = std::optional<at::ScalarType>;
using Layout = std::optional<at::Layout>;
using Device = std::optional<at::Device>;
using Flag = std::optional<bool>;
Tensor empty_memory_format(c10::IntArrayRef size, Type dtype, Layout, Device, Flag, std::optional<at::MemoryFormat> f) {
  return Tensor(at::detail::empty_generic(size, &allocator_, KEYS, c10::dtype_or_default(dtype), f));
}
Tensor empty_strided(c10::IntArrayRef size, c10::IntArrayRef stride, Type dtype, Layout, Device, Flag) {
  return Tensor(at::detail::empty_strided_generic(size, stride, &allocator_, KEYS, c10::dtype_or_default(dtype)));
}
Tensor attention(const Tensor& q, const Tensor& k, const Tensor& v, const std::optional<Tensor>& mask, double p, bool causal,
                 std::optional<double> scale, bool gqa) {
  return std::get<0>(at::_scaled_dot_product_attention_math(q, k, v, mask, p, causal, std::nullopt, scale, gqa));
}

TORCH_LIBRARY_IMPL(_, CUDA, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }
TORCH_LIBRARY_IMPL(aten, CUDA, m) {
  m.impl("empty.memory_format", &empty_memory_format);
  m.impl("empty_strided", &empty_strided);
  m.impl("as_strided", TORCH_FN(at::native::as_strided_tensorimpl));
  m.impl("view", TORCH_FN(at::native::view));
  m.impl("unfold", TORCH_FN(at::native::unfold));
  m.impl("_reshape_alias", TORCH_FN(at::native::_reshape_alias));
  m.impl("view_as_real", TORCH_FN(at::native::view_as_real));
  m.impl("resize_", TORCH_FN(at::native::resize_));
  m.impl("copy_", &copy_);
  m.impl("_local_scalar_dense", &local_scalar_dense);
  // These have kernels for any device that would call kernels of CUDA's own; here they too go to the CPU whole.
  for (auto op : {"convolution", "convolution_backward", "native_group_norm", "native_batch_norm", "native_dropout",
                  "native_dropout_backward", "native_layer_norm", "embedding_dense_backward", "_unique2", "nonzero", "pad_",
                  "upsample_bilinear2d", "_foreach_lerp_.Scalar", "_foreach_norm.Scalar", "_foreach_mul_.Tensor", "_foreach_mul_.Scalar",
                  "_fused_adam_", "_foreach_add_.Scalar", "_foreach_copy_"})
    try { m.impl(op, torch::CppFunction::makeFromBoxedFunction<&fallback>()); } catch (...) {}
}
TORCH_LIBRARY_IMPL(aten, AutogradCUDA, m) { m.impl("scaled_dot_product_attention", &attention); }
TORCH_LIBRARY(fakecuda, m) {
  m.def("sync_mode(int mode) -> ()", [](int64_t mode) { sync_mode = mode; });
  m.def("syncs() -> str[]", []() { std::lock_guard<std::mutex> g(syncs_lock); return syncs; });
  m.def("forget() -> ()", []() { std::lock_guard<std::mutex> g(syncs_lock); syncs.clear(); });
  m.def("seed(int seed) -> ()", [](int64_t s) { default_generator().set_current_seed((uint64_t)s); });
  m.def("state() -> Tensor", []() { return default_generator().get_state(); });
  m.def("set_state(Tensor state) -> ()", [](const Tensor& s) { default_generator().set_state(s); });
  m.def("memory() -> int[]", []() { return std::vector<int64_t>{in_use, peak}; });
  m.def("reset_peak() -> ()", []() { peak = (int64_t)in_use; });
  m.def("launches() -> int", []() { return (int64_t)launches; });
  m.def("pending() -> int", []() { return (int64_t)pending; });
  m.def("wait() -> ()", []() { pending = 0; });
}
struct Setup { Setup() { c10::SetAllocator(c10::DeviceType::CUDA, &allocator_, 200); } } setup;
C10_REGISTER_GUARD_IMPL(CUDA, FakeGuard);
}  // namespace
