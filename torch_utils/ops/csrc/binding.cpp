// The kernels as functions of tensors. Everything that can be wrong is checked by the Python that calls them.
#include <c10/cuda/CUDAException.h>
#include <c10/cuda/CUDAGuard.h>
#include <c10/cuda/CUDAStream.h>
#include <torch/extension.h>

#include <limits>

#include "kernels.h"

namespace {

kd::Type type_of(const torch::Tensor& x) {
    switch (x.scalar_type()) {
        case torch::kDouble: return kd::Type::float64;
        case torch::kFloat: return kd::Type::float32;
        case torch::kHalf: return kd::Type::float16;
        case torch::kBFloat16: return kd::Type::bfloat16;
        default: TORCH_CHECK(false, "expected floating-point images, got ", x.scalar_type());
    }
}

torch::Tensor upfirdn2d(torch::Tensor x, torch::Tensor f, std::vector<int64_t> up, std::vector<int64_t> down,
                        std::vector<int64_t> pad, bool flip, double gain) {
    const c10::cuda::CUDAGuard guard(x.device());
    x = x.contiguous();
    f = f.to(torch::kFloat).contiguous();
    const int64_t width = (x.size(3) * up[0] + pad[0] + pad[1] - f.size(1)) / down[0] + 1;
    const int64_t height = (x.size(2) * up[1] + pad[2] + pad[3] - f.size(0)) / down[1] + 1;
    auto y = torch::empty({x.size(0), x.size(1), height, width}, x.options());
    kd::Filtering job{};
    job.type = type_of(x);
    job.x = x.const_data_ptr();
    job.f = f.const_data_ptr<float>();
    job.y = y.data_ptr();
    job.planes = x.size(0) * x.size(1);
    job.in_width = x.size(3), job.in_height = x.size(2), job.out_width = width, job.out_height = height;
    job.taps_x = f.size(1), job.taps_y = f.size(0);
    job.up_x = up[0], job.up_y = up[1], job.down_x = down[0], job.down_y = down[1];
    job.pad_x = pad[0], job.pad_y = pad[2];
    job.flip = flip, job.gain = gain;
    C10_CUDA_CHECK(kd::filter_planes(job, c10::cuda::getCurrentCUDAStream()));
    return y;
}

kd::Kinking kinking(const torch::Tensor& x, double factor, double gain, double slope, std::optional<double> clamp) {
    kd::Kinking job{};
    job.type = type_of(x);
    job.x = x.const_data_ptr();
    job.count = x.numel();
    job.factor = factor, job.gain = gain, job.slope = slope;
    job.clamp = clamp ? *clamp : std::numeric_limits<double>::infinity();
    return job;
}

// `x` must be dense in memory, `inner` elements of a channel side by side. The result has the layout of `x`.
torch::Tensor kink(torch::Tensor x, std::optional<torch::Tensor> b, int64_t inner, double factor, double gain, double slope,
                   std::optional<double> clamp) {
    const c10::cuda::CUDAGuard guard(x.device());
    auto y = torch::empty_like(x);
    auto job = kinking(x, factor, gain, slope, clamp);
    torch::Tensor bias;
    if (b) {
        bias = b->to(x.scalar_type()).contiguous();
        job.b = bias.const_data_ptr();
        job.channels = bias.numel();
    }
    job.inner = inner;
    job.out = y.data_ptr();
    C10_CUDA_CHECK(kd::kink(job, c10::cuda::getCurrentCUDAStream()));
    return y;
}

// `g` and `y` of the same layout.
torch::Tensor kink_gradient(torch::Tensor g, torch::Tensor y, double factor, double slope, std::optional<double> clamp) {
    const c10::cuda::CUDAGuard guard(g.device());
    auto out = torch::empty_like(y);
    auto job = kinking(g, factor, 1, slope, clamp);
    job.y = y.const_data_ptr();
    job.out = out.data_ptr();
    C10_CUDA_CHECK(kd::kink_gradient(job, c10::cuda::getCurrentCUDAStream()));
    return out;
}

}  // namespace

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
    m.def("upfirdn2d", &upfirdn2d);
    m.def("kink", &kink);
    m.def("kink_gradient", &kink_gradient);
}
